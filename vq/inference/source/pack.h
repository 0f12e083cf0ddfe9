/* From the stream of a container (docs/spec-vqstream-1.md) into tiles, block by block of rows. */

/* Where a layer's sub-vectors lie in its stream. */
struct source {
    const uint8_t *stream;
    num tile;   /* rows of a block of the stream */
    num chunk;  /* bytes of a full one */
    int coded;  /* planes, not a byte for every weight */
};

/* Number in the stream of the sub-vector in a row and column. */
INLINE num place_of(const struct layer *l, const struct source *s, num row, num column) {
    num first = row / s->tile * s->tile, rows = lower(s->tile, l->rows - first);
    return first * l->columns + column * rows + row - first;
}

/* Indices or codes of `rows` sub-vectors from n on, all in one chunk and from a whole byte on. */
INLINE void codes_at(const struct layer *l, const uint8_t *chunk, num n, num rows, uint8_t *codes) {
    for (num at = 0; at < rows; at += 8) {
        uint64_t planes = 0;
        for (num b = 0; b < l->bits; b++)
            planes |= (uint64_t)chunk[64 * b + (n % 512 + at) / 8] << 8 * b;
        planes = transposed(planes);
        memcpy(codes + at, &planes, lower(8, rows - at));
    }
}

INLINE uint8_t code_at(const struct layer *l, const uint8_t *chunk, num n) {
    uint8_t code = 0;
    for (num b = 0; b < l->bits; b++) code |= (chunk[64 * b + n % 512 / 8] >> n % 8 & 1) << b;
    return code;
}

/* Stored signs of sub-vector n, its bits from the least on. */
INLINE uint64_t signs_at(const struct layer *l, const uint8_t *chunk, num n) {
    num first = n % 512 * l->signs, last = first + l->signs - 1;
    const uint8_t *from = chunk + 64 * l->bits + first / 8;
    uint64_t found = 0;
    memcpy(&found, from, last / 8 - first / 8 + 1); /* at most 8 bytes: at most 57 signs */
    return found >> first % 8 & (((uint64_t)1 << l->signs) - 1);
}

/* Codes and signs of one column of 16 rows; the highest code. */
INLINE int column_of(const struct layer *l, const struct source *s, num row, num column,
                     uint8_t *codes, uint64_t *signs) {
    num rows = lower(ROWS, l->rows - row), n = place_of(l, s, row, column);
    int together = place_of(l, s, row + rows - 1, column) == n + rows - 1;
    if (!s->coded) {
        for (num i = 0; i < rows; i++)
            codes[i] = s->stream[together ? n + i : place_of(l, s, row + i, column)] ^ 0x80;
        return 0;
    }
    const uint8_t *chunk = s->stream + n / 512 * s->chunk;
    int whole = together && n % 8 == 0 && n / 512 == (n + rows - 1) / 512;
    if (whole) codes_at(l, chunk, n, rows, codes);
    int most = 0;
    for (num i = 0; i < rows; i++) {
        num own = together ? n + i : place_of(l, s, row + i, column);
        if (!whole) chunk = s->stream + own / 512 * s->chunk;
        if (!whole) codes[i] = code_at(l, chunk, own);
        if (l->signs) signs[i] = signs_at(l, chunk, own);
        most = codes[i] > most ? codes[i] : most;
    }
    return most;
}

/* Write one tile, the `second` of two or not, of codes and signs of its lanes. */
static void write_tile(const struct layer *l, const uint8_t *codes, const uint64_t *signs,
                       num second, uint8_t *p) {
    switch (l->form) {
    case INT8: memcpy(p, codes, LANES); return;
    case INT4:
        for (num i = 0; i < LANES; i++) p[i] |= codes[i] << 4 * second;
        return;
    case NIBBLES4:
        for (num i = 0; i < LANES; i++) p[i] = codes[i] | (uint8_t)(signs[i] << 4);
        return;
    case NIBBLES8:
        for (num i = 0; i < LANES; i++) {
            p[LANES * second + i] = codes[i] | (uint8_t)(signs[i] << 4);
            p[2 * LANES + i] |= (uint8_t)(signs[i] >> 4) << 4 * second;
        }
        return;
    case BYTES: memcpy(p, codes, LANES); break;
    default:
        for (num g = 0; g < 8; g++) {
            uint64_t planes;
            memcpy(&planes, codes + 8 * g, 8);
            planes = transposed(planes);
            for (num b = 0; b < l->bits; b++) p[8 * b + g] = (uint8_t)(planes >> 8 * b);
        }
    }
    for (num e = 0; e < l->signs; e += 8)
        for (num g = 0; g < 8; g++) {
            uint64_t planes = 0;
            for (num i = 0; i < 8; i++) planes |= (signs[8 * g + i] >> e & 255) << 8 * i;
            planes = transposed(planes);
            for (num b = e; b < lower(e + 8, l->signs); b++)
                p[8 * (l->bits + b) + g] = (uint8_t)(planes >> 8 * (b - e));
        }
}

/* Fill the tiles of all blocks; the highest index. Needs at most 8 bits and at most 57 signs. */
int signbook_pack(const num *shape, const uint8_t *stream, num tile, uint8_t *tiles, num threads) {
    struct layer l = layer_of(shape, tiles, NULL);
    struct source s = {stream, tile, 64 * (l.bits + l.signs), l.form != INT8};
    num paired = l.form == NIBBLES8 || l.form == INT4;
    int highest = 0;
    (void)threads;
#pragma omp parallel for num_threads(threads) if (threads > 1) reduction(max : highest)
    for (num block = 0; block < l.blocks; block++) {
        uint8_t *p = tiles + block * l.row_tiles * l.tile_bytes;
        memset(p, 0, l.row_tiles * l.tile_bytes);
        for (num r = 0; r < l.ranges; r++) {
            num at = r * l.range_tiles, end = lower((r + 1) * l.width, l.columns);
            for (num c = r * l.width; c < end; c += 4, at++) {
                uint8_t codes[LANES] = {0}, column[ROWS] = {0};
                uint64_t signs[LANES] = {0}, own[ROWS] = {0};
                if (l.form == INT8) memset(codes, 0x80, LANES);
                for (num j = 0; j < lower(4, end - c); j++) {
                    int most = column_of(&l, &s, block * ROWS, c + j, column, own);
                    highest = most > highest ? most : highest;
                    for (num i = 0; i < lower(ROWS, l.rows - block * ROWS); i++) {
                        codes[4 * i + j] = column[i];
                        signs[4 * i + j] = own[i];
                    }
                }
                num second = paired && at % 2;
                write_tile(&l, codes, signs, second, p + (at - second) * l.tile_bytes);
            }
        }
    }
    return highest;
}
