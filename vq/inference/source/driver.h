/* Multiplying, given what an instruction set brings:

   OFFSET    what its products add to every weight
   DIRECT    rows that `multiply` takes at most
   prepare   tables of a layer, of TABLES bytes
   multiply  sums [rows, 16] of rows by n tiles, weight by weight as they are decoded;
             0 if it has no path for the layer, or not for so many rows
   unpack    as unpack_any
   product   add to sums [rows, 16], `wide` apart, those of n vectors of decoded weights
*/

struct call {
    struct layer layer;
    const struct piece *pieces;
    num count;
    const uint8_t *tables;
    num tokens, digits; /* rows are tokens by digits */
    num stride;         /* of rows of x */
    const int8_t *x;
    const float *floats; /* instead, where nothing is rounded */
    const int32_t *given; /* sums of x, [rows, pieces] */
    const float *steps;  /* [tokens] */
    float *y;
};

/* What a thread works in. */
struct room {
    uint8_t *decoded; /* [DECODED, 64] */
    float *floats;    /* [DECODED, 64], if nothing is rounded */
    int32_t *sums;    /* [rows, lanes] */
    int64_t *totals;  /* the same, of a range of several pieces, or of two digits */
    float *outputs;   /* [tokens, lanes] */
};

/* Tiles to decode at a time: whole pairs. */
static num decoded_tiles(const struct layer *l) { return DECODED / l->d & ~(num)1; }

static void sum_piece(const struct call *c, struct room *room, const struct piece *piece,
                      const uint8_t *p) {
    const struct layer *l = &c->layer;
    num rows = c->tokens * c->digits, lanes = ROWS * (l->out ? l->d : 1);
    const int8_t *x = c->x + piece->first * l->given * 4;
    if (!l->out && rows <= DIRECT
        && multiply(l, c->tables, p, piece->tiles, x, c->stride, rows, room->sums))
        return;
    memset(room->sums, 0, rows * lanes * sizeof(int32_t));
    num most = decoded_tiles(l);
    for (num t = 0; t < piece->tiles; t += most) {
        num n = lower(most, piece->tiles - t);
        unpack(l, c->tables, p + t * l->tile_bytes, n, room->decoded);
        const int8_t *own = x + t * l->given * 4;
        if (l->out)
            for (num e = 0; e < l->d; e++)
                product(room->decoded + LANES * e, LANES * l->d, n, own, c->stride, rows,
                        room->sums + ROWS * e, lanes);
        else
            product(room->decoded, LANES, n * l->d, own, c->stride, rows, room->sums, lanes);
    }
}

/* What was added to the weights of a piece's range, and what one of their integers is worth. */
static void worth(const struct call *c, num block, num range, uint32_t *offset, float *scale) {
    const struct layer *l = &c->layer;
    num at = (block * l->ranges + range) * ROWS;
    for (num i = 0; i < ROWS; i++) offset[i] = OFFSET;
    if (!l->group) return;
    if (l->zeros)
        for (num i = 0; i < ROWS; i++) offset[i] += l->zeros[at + i];
    else
        for (num i = 0; i < ROWS; i++) offset[i] += 1 << (l->bits - 1);
    for (num i = 0; i < ROWS; i++) scale[i] = widened(l->groups[at + i]);
}

/* Add the sums of a group [rows, 16], times its scales, to the outputs. */
static void add_group(num rows, const uint32_t *restrict offset, const float *restrict scale,
                      const int32_t *restrict sums, const int32_t *restrict given, num apart,
                      float *restrict y) {
    for (num r = 0; r < rows; r++, sums += ROWS, y += ROWS, given += apart)
        for (num i = 0; i < ROWS; i++) {
            int32_t own = (int32_t)((uint32_t)sums[i] - offset[i] * (uint32_t)*given);
            y[i] = y[i] + (float)own * scale[i];
        }
}

/* Account for the sums of a piece; `started` if it is not the first of its range. */
static void account(const struct call *c, struct room *room, num block, num at, int started) {
    const struct layer *l = &c->layer;
    const struct piece *piece = c->pieces + at;
    num rows = c->tokens * c->digits, lanes = ROWS * (l->out ? l->d : 1);
    int wide = c->digits > 1 || started || !piece->last;
    uint32_t offset[ROWS];
    float scale[ROWS], value[ROWS];
    worth(c, block, piece->range, offset, scale);
    if (l->group && !wide) {
        add_group(rows, offset, scale, room->sums, c->given + at, c->count, room->outputs);
        return;
    }
    for (num r = 0; r < rows; r++) {
        uint32_t given = c->given[r * c->count + at];
        for (num s = 0; s < lanes; s += ROWS) {
            const int32_t *sums = room->sums + r * lanes + s;
            float *y = room->outputs + r * lanes + s;
            int64_t *total = room->totals + r * lanes + s;
#define OWN ((int32_t)((uint32_t)sums[i] - offset[i] * given))
            if (started)
                for (num i = 0; i < ROWS; i++) total[i] += OWN;
            else if (wide)
                for (num i = 0; i < ROWS; i++) total[i] = OWN;
            else
                for (num i = 0; i < ROWS; i++) y[i] = (float)OWN;
#undef OWN
        }
    }
    if (!wide || !piece->last) return;
    for (num m = 0; m < c->tokens; m++)
        for (num s = 0; s < lanes; s += ROWS) {
            const int64_t *high = room->totals + m * c->digits * lanes + s;
            if (c->digits == 1)
                for (num i = 0; i < ROWS; i++) value[i] = (float)high[i];
            else
                for (num i = 0; i < ROWS; i++) value[i] = (float)(255 * high[i] + high[lanes + i]);
            float *y = room->outputs + m * lanes + s;
            if (l->group)
                for (num i = 0; i < ROWS; i++) y[i] = y[i] + value[i] * scale[i];
            else
                memcpy(y, value, sizeof(value));
        }
}

static void sum_exactly(const struct call *c, struct room *room, num block, const uint8_t *p) {
    const struct layer *l = &c->layer;
    num lanes = ROWS * (l->out ? l->d : 1), most = decoded_tiles(l);
    for (num r = 0; r < l->ranges; r++) {
        num first = r * l->range_tiles, end = lower(first + l->range_tiles, l->row_tiles);
        float scale[ROWS], zero[ROWS];
        for (num i = 0; i < ROWS; i++) {
            num at = (block * l->ranges + r) * ROWS + i;
            scale[i] = l->group ? widened(l->groups[at]) : 1;
            zero[i] = 128;
            if (l->group) zero[i] += l->zeros ? l->zeros[at] : 1 << (l->bits - 1);
        }
        for (num t = first; t < end; t += most) {
            num n = lower(most, end - t);
            unpack(l, c->tables, p + t * l->tile_bytes, n, room->decoded);
            for (num v = 0; v < n * l->d; v++)
                for (num j = 0; j < 4; j++)
                    for (num i = 0; i < ROWS; i++)
                        room->floats[v * LANES + j * ROWS + i] =
                            ((float)room->decoded[v * LANES + 4 * i + j] - zero[i]) * scale[i];
            for (num m = 0; m < c->tokens; m++) {
                const float *x = c->floats + m * c->stride + t * l->given * 4;
                for (num e = 0; e < (l->out ? l->d : 1); e++) {
                    float *y = room->outputs + m * lanes + e * ROWS;
                    const float *w = room->floats + e * LANES;
                    num step = l->out ? l->d : 1;
                    for (num v = 0; v < n * l->given; v++)
                        for (num j = 0; j < 4; j++)
                            for (num i = 0; i < ROWS; i++)
                                y[i] += w[v * step * LANES + j * ROWS + i] * x[4 * v + j];
                }
            }
        }
    }
}

/* Outputs `first` and on, `apart`, of token m: what 16 sums are worth. */
static void finish(const struct call *c, const float *sums, num m, num first, num apart) {
    const struct layer *l = &c->layer;
    num n = lower(ROWS, up(l->outputs - first, apart));
    float step = c->floats ? 1 : c->steps[m], one = l->scales ? l->scale[0] : 1, y[ROWS];
    for (num i = 0; i < ROWS; i++) y[i] = sums[i] * step;
    if (l->scales > 1)
        for (num i = 0; i < n; i++) y[i] = y[i] * l->scale[first + i * apart];
    else
        for (num i = 0; i < ROWS; i++) y[i] = y[i] * one;
    if (l->bias)
        for (num i = 0; i < n; i++) y[i] = y[i] + l->bias[first + i * apart];
    float *out = c->y + m * l->outputs + first;
    if (apart == 1) memcpy(out, y, n * sizeof(float));
    else
        for (num i = 0; i < n; i++) out[i * apart] = y[i];
}

static void block_of(const struct call *c, struct room *room, num block) {
    const struct layer *l = &c->layer;
    num lanes = ROWS * (l->out ? l->d : 1);
    const uint8_t *p = l->tiles + block * l->row_tiles * l->tile_bytes;
    memset(room->outputs, 0, c->tokens * lanes * sizeof(float));
    if (c->floats) sum_exactly(c, room, block, p);
    int started = 0;
    for (num at = 0; !c->floats && at < c->count; at++) {
        const struct piece *piece = c->pieces + at;
        sum_piece(c, room, piece, p + piece->first * l->tile_bytes);
        account(c, room, block, at, started);
        started = !piece->last;
    }
    num along = l->out ? l->d : 1;
    for (num m = 0; m < c->tokens; m++)
        for (num e = 0; e < along; e++)
            finish(c, room->outputs + m * lanes + e * ROWS, m, block * lanes + e, along);
}

/* All arrays of a call or a thread in one, each from a multiple of 64 bytes on. */
static void *part_of(uint8_t **free_bytes, num bytes) {
    uint8_t *part = *free_bytes;
    *free_bytes += up(bytes, 64) * 64;
    return part;
}

/* A layer that a call multiplies by, as linear in kernels.py passes it. */
struct operand {
    const num *shape;
    const uint8_t *tiles;
    const int8_t *book;
    const float *scale;
    num scales;
    const uint16_t *groups;
    const uint8_t *zeros;
    const float *bias;
    float *y;
};

static struct call call_of(const struct operand *o, num tokens, num digits) {
    struct call c = {.layer = layer_of(o->shape, o->tiles, o->book), .tokens = tokens, .y = o->y};
    struct layer *l = &c.layer;
    l->scale = o->scale, l->scales = o->scales, l->groups = o->groups, l->zeros = o->zeros;
    l->bias = o->bias;
    c.pieces = pieces_of(l, &c.count);
    c.digits = digits ? digits : 1;
    /* Lines of the cache, an odd number: rows of a power of two would all want the same few. */
    c.stride = 64 * (up(l->row_tiles * l->given * 4, 64) | 1);
    return c;
}

/* Whether two layers are given the same inputs in the same places. */
static int alike(const struct layer *a, const struct layer *b) {
    return a->given == b->given && a->width == b->width && a->row_tiles == b->row_tiles;
}

/* Bytes of a row of x, and of what is added up of it. */
static num row_bytes(const struct call *c, num digits) { return c->stride * (digits ? 1 : 4); }
static num given_bytes(const struct call *c) {
    return up(c->tokens * c->digits * c->count * 4, 64) * 64;
}

/* Bring token m, rounded to digits q [digits, padded] or as it is, to where a layer reads it. */
static void bring(struct call *c, num digits, num m, const uint8_t *q, num padded) {
    if (!digits) {
        arrange_floats(&c->layer, (const float *)q, (float *)c->floats + m * c->stride);
        return;
    }
    for (num r = m * digits; r < (m + 1) * digits; r++) {
        int8_t *row = (int8_t *)c->x + r * c->stride;
        arrange(&c->layer, (const int8_t *)q + r % digits * padded, row);
        for (num i = 0; i < c->count; i++) {
            const int8_t *first = row + c->pieces[i].first * c->layer.given * 4;
            int32_t sum = 0;
            for (num v = 0; v < c->pieces[i].tiles * c->layer.given * 4; v++) sum += first[v];
            ((int32_t *)c->given)[r * c->count + i] = sum;
        }
    }
}

/* Multiply by all blocks of n layers; 0, or -1 where there is no memory. */
static int run_blocks(const struct call *calls, num n, num threads) {
    num lanes = 0, blocks = 0, work = 0;
    for (num i = 0; i < n; i++) {
        const struct layer *l = &calls[i].layer;
        num own = ROWS * (l->out ? l->d : 1);
        lanes = own > lanes ? own : lanes;
        blocks += l->blocks;
        work += l->outputs * l->inputs * calls->tokens * calls->digits;
    }
    num rows = calls->tokens * calls->digits, cells = DECODED * LANES;
    num floats = calls->floats ? cells : 0;
    num bytes = 64 * (up(cells, 64) + up(4 * floats, 64) + up(4 * rows * lanes, 64)
                      + up(8 * rows * lanes, 64) + up(4 * calls->tokens * lanes, 64));
    int failed = 0;
    threads = lower(lower(threads, blocks), 1 + work / WORK);
    (void)threads;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        uint8_t *space = aligned_alloc(64, bytes), *next = space;
        struct room room = {
            part_of(&next, cells), part_of(&next, 4 * floats), part_of(&next, 4 * rows * lanes),
            part_of(&next, 8 * rows * lanes), part_of(&next, 4 * calls->tokens * lanes),
        };
        if (space == NULL) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(static)
        for (num block = 0; block < blocks; block++) {
            const struct call *c = calls;
            num own = block;
            while (own >= c->layer.blocks) own -= c++->layer.blocks;
            if (space) block_of(c, &room, own);
        }
        free(space);
    }
    return failed ? -1 : 0;
}

/* Multiply tokens x [tokens, inputs] by n layers, see linear in kernels.py; 0, or -1 where there is
   no memory. */
int signbook_linear(const struct operand *operands, num n, const float *x, num tokens, num digits,
                    num threads) {
    if (!tokens) return 0;
    struct call *calls = calloc(n, sizeof(struct call));
    int failed = calls == NULL;
    num bytes = up(tokens * 4, 64) * 64, padded = 0, inputs = 0;
    for (num i = 0; i < n && !failed; i++) {
        struct call *c = calls + i;
        *c = call_of(operands + i, tokens, digits);
        failed = c->pieces == NULL;
        bytes += tokens * c->digits * row_bytes(c, digits) + given_bytes(c) + up(TABLES, 64) * 64;
        num own = up(c->layer.out ? c->layer.inputs : c->layer.columns * c->layer.d, 64) * 64;
        padded = own > padded ? own : padded;
        inputs = c->layer.inputs;
    }
    num flat = (digits ? digits : 4) * padded;
    uint8_t *held = failed ? NULL : aligned_alloc(64, bytes + flat), *at = held;
    failed |= held == NULL;
    if (!failed) {
        uint8_t *q = part_of(&at, flat);
        float *steps = part_of(&at, tokens * 4);
        for (num i = 0; i < n; i++) {
            struct call *c = calls + i;
            num own = tokens * c->digits * row_bytes(c, digits);
            uint8_t *tables = part_of(&at, TABLES);
            prepare(&c->layer, tables);
            c->tables = tables, c->steps = steps;
            if (i && alike(&c->layer, &c[-1].layer)) {
                c->x = c[-1].x, c->floats = c[-1].floats, c->given = c[-1].given;
                continue;
            }
            void *values = part_of(&at, own);
            memset(values, 0, own);
            c->given = part_of(&at, given_bytes(c));
            if (digits) c->x = values;
            else c->floats = values;
        }
        memset(q, 0, flat);
        for (num m = 0; m < tokens; m++) {
            if (digits) steps[m] = rounded(x + m * inputs, inputs, padded, digits, (int8_t *)q);
            else memcpy(q, x + m * inputs, inputs * sizeof(float));
            for (num i = 0; i < n; i++)
                if (!i || calls[i].given != calls[i - 1].given)
                    bring(calls + i, digits, m, q, padded);
        }
        failed = run_blocks(calls, n, threads) != 0;
    }
    free(held);
    for (num i = 0; i < n && calls; i++) free((void *)calls[i].pieces);
    free(calls);
    return failed ? -1 : 0;
}

/* Integers of chosen outputs, [n, inputs]: weights, or codes of scalars with groups. */
int signbook_rows(const num *shape, const uint8_t *tiles, const int8_t *book, const num *chosen,
                  num n, int8_t *out, num threads) {
    struct layer l = layer_of(shape, tiles, book);
    uint8_t *tables = aligned_alloc(64, up(TABLES, 64) * 64);
    int failed = tables == NULL;
    if (!failed) prepare(&l, tables);
    threads = lower(threads, up(n, ROWS));
    (void)threads;
#pragma omp parallel num_threads(threads) if (threads > 1 && !failed)
    {
        uint8_t *decoded = failed ? NULL : aligned_alloc(64, l.row_tiles * l.d * LANES);
        num held = -1;
        if (decoded == NULL) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(static)
        for (num at = 0; at < n; at++) {
            if (decoded == NULL) continue;
            num row = l.out ? chosen[at] / l.d : chosen[at], along = l.out ? chosen[at] % l.d : 0;
            num block = row / ROWS, lane = 4 * (row % ROWS);
            if (block != held)
                unpack(&l, tables, l.tiles + block * l.row_tiles * l.tile_bytes, l.row_tiles,
                       decoded);
            held = block;
            for (num r = 0; r < l.ranges; r++) {
                num end = lower((r + 1) * l.width, l.columns);
                for (num c = r * l.width; c < end; c++) {
                    num in = c - r * l.width;
                    const uint8_t *w = decoded + (r * l.range_tiles + in / 4) * l.d * LANES + lane
                        + in % 4;
                    if (l.out)
                        out[at * l.inputs + c] = (int8_t)(w[along * LANES] - 128);
                    else
                        for (num e = 0; e < lower(l.d, l.inputs - c * l.d); e++)
                            out[at * l.inputs + c * l.d + e] = (int8_t)(w[e * LANES] - 128);
                }
            }
        }
        free(decoded);
    }
    free(tables);
    return failed ? -1 : 0;
}

/* Whether the layer has a path of its own here, not only that for all. */
int signbook_tuned(const num *shape) {
    struct layer l = layer_of(shape, NULL, NULL);
    return tuned(&l);
}
