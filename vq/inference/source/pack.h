/* From the stream of a container (docs/spec-vqstream-1.md) into tiles, block by block of rows. */

/* At most so many signs of a sub-vector, in bytes. */
#define SIGN_BYTES 4

/* Where a layer's sub-vectors lie in its stream. */
struct source {
    const uint8_t *stream;
    num tile;  /* rows of a block of the stream */
    num chunk; /* bytes of a full one */
    /* Of 16 rows that lie side by side: the first one's place in column 0, and from column to
       column. Without `together`, each row has its own place. */
    num base, step;
    int together;
};

/* Codes of a tile's lanes, and their signs by bytes. */
struct lanes {
    uint8_t codes[LANES], signs[SIGN_BYTES][LANES];
};

/* Number in the stream of the sub-vector in a row and column. */
static num place_of(const struct layer *l, const struct source *s, num row, num column) {
    num first = row / s->tile * s->tile, rows = lower(s->tile, l->rows - first);
    return first * l->columns + column * rows + row - first;
}

INLINE const uint8_t *chunk_of(const struct source *s, num n) {
    return s->stream + (n >> 9) * s->chunk;
}

/* Codes and signs of sub-vector n, into a lane; the code. */
static int read_one(const struct layer *l, const struct source *s, num n, struct lanes *to,
                    num lane) {
    const uint8_t *chunk = chunk_of(s, n), *signs = chunk + 64 * l->bits;
    num within = n & 511;
    int code = 0;
    for (num b = 0; b < l->bits; b++) code |= (chunk[64 * b + within / 8] >> within % 8 & 1) << b;
    to->codes[lane] = (uint8_t)code;
    for (num e = 0, at = within * l->signs; e < l->signs; e++, at++)
        to->signs[e / 8][lane] |= (signs[at / 8] >> at % 8 & 1) << e % 8;
    return code;
}

/* The same of eight sub-vectors from n on, a multiple of 8, into every fourth lane. */
INLINE int read_eight(const struct layer *l, const struct source *s, num n, struct lanes *to,
                      num lane) {
    const uint8_t *chunk = chunk_of(s, n), *signs = chunk + 64 * l->bits;
    num within = n & 511;
    uint64_t codes = 0;
    uint8_t most = 0;
    int asked = l->k & (l->k - 1); /* else every code is a codeword's */
    for (num b = 0; b < l->bits; b++) codes |= (uint64_t)chunk[64 * b + within / 8] << 8 * b;
    codes = transposed(codes);
    for (num i = 0; i < 8; i++) {
        uint8_t code = (uint8_t)(codes >> 8 * i);
        to->codes[lane + 4 * i] = code;
        if (asked) most = code > most ? code : most;
    }
    signs += within / 8 * l->signs;
    if (l->signs == 8)
        for (num i = 0; i < 8; i++) to->signs[0][lane + 4 * i] = signs[i];
    else if (l->signs && l->signs <= 8) {
        uint64_t bits = 0;
        for (num i = 0; i < l->signs; i++) bits |= (uint64_t)signs[i] << 8 * i;
        for (num i = 0; i < 8; i++)
            to->signs[0][lane + 4 * i] = bits >> i * l->signs & ((1 << l->signs) - 1);
    } else
        for (num i = 0, at = 0; i < 8; i++)
            for (num e = 0; e < l->signs; e++, at++)
                to->signs[e / 8][lane + 4 * i] |= (signs[at / 8] >> at % 8 & 1) << e % 8;
    return most;
}

/* Codes and signs of a column of `rows` rows, into lanes from j on; the highest code. */
INLINE int read_column(const struct layer *l, const struct source *s, num row, num rows, num column,
                       struct lanes *to, num j) {
    num n = s->base + column * s->step;
    int most = 0;
    if (l->form == INT8) {
        for (num i = 0; i < rows; i++)
            to->codes[4 * i + j] =
                s->stream[s->together ? n + i : place_of(l, s, row + i, column)] ^ 0x80;
        return 0;
    }
    num i = 0;
    if (s->together && n % 8 == 0)
        for (; i + 8 <= rows; i += 8) {
            int found = read_eight(l, s, n + i, to, 4 * i + j);
            most = found > most ? found : most;
        }
    for (; i < rows; i++) {
        num own = s->together ? n + i : place_of(l, s, row + i, column);
        int found = read_one(l, s, own, to, 4 * i + j);
        most = found > most ? found : most;
    }
    return most;
}

/* The lowest bits of the bytes of 64 lanes, 8 bytes for each. */
INLINE void write_planes(const uint8_t *bytes, num planes, uint8_t *p) {
    for (num g = 0; g < 8; g++) {
        uint64_t bits;
        memcpy(&bits, bytes + 8 * g, 8);
        bits = transposed(bits);
        for (num b = 0; b < planes; b++) p[8 * b + g] = (uint8_t)(bits >> 8 * b);
    }
}

/* Write one tile, the `second` of two or not. */
static void write_tile(const struct layer *l, const struct lanes *from, num second, uint8_t *p) {
    const uint8_t *codes = from->codes, *signs = from->signs[0];
    switch (l->form) {
    case INT8: memcpy(p, codes, LANES); return;
    case INT4:
        for (num i = 0; i < LANES; i++) p[i] |= (uint8_t)(codes[i] << 4 * second);
        return;
    case NIBBLES4:
        for (num i = 0; i < LANES; i++) p[i] = codes[i] | (uint8_t)(signs[i] << 4);
        return;
    case NIBBLES8:
        for (num i = 0; i < LANES; i++) p[LANES * second + i] = codes[i] | (uint8_t)(signs[i] << 4);
        if (second)
            for (num i = 0; i < LANES; i++) p[2 * LANES + i] |= signs[i] & 0xf0;
        else
            for (num i = 0; i < LANES; i++) p[2 * LANES + i] = signs[i] >> 4;
        return;
    case BYTES: memcpy(p, codes, LANES); break;
    default: write_planes(codes, l->bits, p);
    }
    for (num e = 0; e < l->signs; e += 8)
        write_planes(from->signs[e / 8], lower(8, l->signs - e), p + 8 * (l->bits + e));
}

/* Fill the tiles of all blocks; the highest index. Needs at most 8 bits and 8 SIGN_BYTES signs. */
int signbook_pack(const num *shape, const uint8_t *stream, num tile, uint8_t *tiles, num threads) {
    struct layer l = layer_of(shape, tiles, NULL);
    num paired = l.form == NIBBLES8 || l.form == INT4;
    int highest = 0;
    (void)threads;
#pragma omp parallel for num_threads(threads) if (threads > 1) reduction(max : highest)
    for (num block = 0; block < l.blocks; block++) {
        struct source s = {.stream = stream, .tile = tile, .chunk = 64 * (l.bits + l.signs)};
        num row = block * ROWS, rows = lower(ROWS, l.rows - row);
        s.base = place_of(&l, &s, row, 0);
        s.step = place_of(&l, &s, row, 1) - s.base;
        s.together = place_of(&l, &s, row + rows - 1, 0) == s.base + rows - 1;
        uint8_t *p = tiles + block * l.row_tiles * l.tile_bytes;
        memset(p, 0, l.row_tiles * l.tile_bytes);
        for (num r = 0; r < l.ranges; r++) {
            num at = r * l.range_tiles, end = lower((r + 1) * l.width, l.columns);
            for (num c = r * l.width; c < end; c += 4, at++) {
                struct lanes lanes;
                memset(lanes.codes, l.form == INT8 ? 0x80 : 0, LANES);
                memset(lanes.signs, 0, (l.signs + 7) / 8 * LANES);
                for (num j = 0; j < lower(4, end - c); j++) {
                    int most = read_column(&l, &s, row, rows, c + j, &lanes, j);
                    highest = most > highest ? most : highest;
                }
                num second = paired && at % 2;
                write_tile(&l, &lanes, second, p + (at - second) * l.tile_bytes);
            }
        }
    }
    return highest;
}
