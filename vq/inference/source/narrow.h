/* NEON, with dot products where the including file's flags have them. A quarter of a tile is a
   register: four outputs. */

#include <arm_neon.h>

#include "layer.h"

#define OFFSET 0
#define DIRECT 2
/* Of every coordinate of a codeword 32 entries: the weight by index, then its negative. */
#define ENTRIES 32
#define TABLES (8 * ENTRIES)
#define AHEAD 4096

typedef int8x16_t quarter;

INLINE quarter load(const void *p) { return vld1q_s8(p); }

INLINE quarter four(const int8_t *x) {
    int32_t inputs;
    memcpy(&inputs, x, 4);
    return vreinterpretq_s8_s32(vdupq_n_s32(inputs));
}

INLINE int32x4_t dot(int32x4_t sum, quarter w, quarter x) {
#ifdef __ARM_FEATURE_DOTPROD
    return vdotq_s32(sum, w, x);
#else
    /* Sums of two products fit 16 bits: 2 * 128 * 127. */
    int16x8_t first = vmull_s8(vget_low_s8(w), vget_low_s8(x)), second = vmull_high_s8(w, x);
    return vpadalq_s16(sum, vpaddq_s16(first, second));
#endif
}

/* From 128 plus the weight, and to it. */
INLINE quarter offset(quarter w) { return veorq_s8(w, vdupq_n_s8(-128)); }

/* What a decoded vector is for: sums of rows, or, of no rows, the place where it is kept. */
struct sink {
    int32x4_t sums[2][4];
    const int8_t *x;
    num stride;
    uint8_t *out;
};

INLINE void emit(const int rows, struct sink *s, num vector, const quarter *w) {
    for (int i = 0; i < 4 && rows == 0; i++)
        vst1q_s8((int8_t *)s->out + LANES * vector + 16 * i, offset(w[i]));
    for (int r = 0; r < rows; r++) {
        quarter x = four(s->x + r * s->stride + 4 * vector);
        for (int i = 0; i < 4; i++) s->sums[r][i] = dot(s->sums[r][i], w[i], x);
    }
}

/* Four weights a lane by indices of four bits, and signs from bit 4 on. */
INLINE void nibbles(const int rows, struct sink *s, const uint8_t *tables, const uint8x16_t *index,
                    const uint8x16_t *signs, num vector) {
    const uint8x16_t sign = vdupq_n_u8(16);
    uint8x16_t left[4];
    quarter w[4];
    for (int i = 0; i < 4; i++) left[i] = signs[i];
    for (int e = 0; e < 4; e++, tables += ENTRIES) {
        int8x16x2_t table = {{load(tables), load(tables + 16)}};
        for (int i = 0; i < 4; i++) {
            w[i] = vqtbl2q_s8(table, vbslq_u8(sign, left[i], index[i]));
            left[i] = vshrq_n_u8(left[i], 1);
        }
        emit(rows, s, vector + e, w);
    }
}

/* The 64 bytes of a tile, or of what two tiles share. */
INLINE void load_tile(uint8x16_t *to, const uint8_t *p) {
    __builtin_prefetch(p + AHEAD);
    for (int i = 0; i < 4; i++) to[i] = vld1q_u8(p + 16 * i);
}

/* Eight weights a lane, the signs of the first four in its byte; without `rest` only these. */
INLINE void nibble_tile(const int rows, struct sink *s, const uint8_t *tables, const uint8_t *p,
                        const uint8x16_t *rest, num vector) {
    uint8x16_t bytes[4], index[4];
    load_tile(bytes, p);
    for (int i = 0; i < 4; i++) index[i] = vandq_u8(bytes[i], vdupq_n_u8(15));
    nibbles(rows, s, tables, index, bytes, vector);
    if (rest) nibbles(rows, s, tables + 4 * ENTRIES, index, rest, vector + 4);
}

INLINE void run_nibbles4(const int rows, const uint8_t *tables, const uint8_t *p, num n,
                         struct sink *s) {
    for (num t = 0; t < n; t++) nibble_tile(rows, s, tables, p + LANES * t, NULL, 4 * t);
}

INLINE void run_nibbles8(const int rows, const uint8_t *tables, const uint8_t *p, num n,
                         struct sink *s) {
    uint8x16_t rest[4], moved[4];
    for (num t = 0; t < n; t += 2, p += 3 * LANES) {
        load_tile(rest, p + 2 * LANES);
        for (int i = 0; i < 4; i++) moved[i] = vshlq_n_u8(rest[i], 4);
        nibble_tile(rows, s, tables, p, moved, 8 * t);
        nibble_tile(rows, s, tables, p + LANES, rest, 8 * t + 8);
    }
}

INLINE void run_int8(const int rows, const uint8_t *p, num n, struct sink *s) {
    quarter w[4];
    for (num t = 0; t < n; t++, p += LANES) {
        __builtin_prefetch(p + AHEAD);
        for (int i = 0; i < 4; i++) w[i] = offset(load(p + 16 * i));
        emit(rows, s, t, w);
    }
}

INLINE void run_int4(const int rows, const uint8_t *p, num n, struct sink *s) {
    uint8x16_t codes[4];
    quarter first[4], second[4];
    for (num t = 0; t < n; t += 2, p += LANES) {
        load_tile(codes, p);
        for (int i = 0; i < 4; i++) {
            first[i] = vreinterpretq_s8_u8(vandq_u8(codes[i], vdupq_n_u8(15)));
            second[i] = vreinterpretq_s8_u8(vshrq_n_u8(codes[i], 4));
        }
        emit(rows, s, t, first);
        emit(rows, s, t + 1, second);
    }
}

static int tuned(const struct layer *l) { return l->form != PLANES && l->form != BYTES; }

static void prepare(const struct layer *l, uint8_t *tables) {
    if (l->form != NIBBLES4 && l->form != NIBBLES8) return;
    for (num e = 0; e < l->d; e++)
        for (num i = 0; i < 16; i++) {
            int w = i < l->k ? l->book[i * l->d + e] : 0;
            tables[ENTRIES * e + i] = (uint8_t)w;
            tables[ENTRIES * e + 16 + i] = (uint8_t)-w;
        }
}

INLINE void run(const int rows, const struct layer *l, const uint8_t *tables, const uint8_t *p,
                num n, struct sink *s) {
    switch (l->form) {
    case NIBBLES4: run_nibbles4(rows, tables, p, n, s); return;
    case NIBBLES8: run_nibbles8(rows, tables, p, n, s); return;
    case INT8: run_int8(rows, p, n, s); return;
    case INT4: run_int4(rows, p, n, s); return;
    }
}

/* Sums of four bytes each are those of the outputs: nothing moves across lanes. */
INLINE void sums_of(const int rows, const struct layer *l, const uint8_t *tables, const uint8_t *p,
                    num n, const int8_t *x, num stride, int32_t *sums) {
    struct sink s = {.x = x, .stride = stride};
    for (int i = 0; i < 8; i++) s.sums[i / 4][i % 4] = vdupq_n_s32(0);
    run(rows, l, tables, p, n, &s);
    for (int i = 0; i < 4 * rows; i++) vst1q_s32(sums + 4 * i, s.sums[i / 4][i % 4]);
}

static int multiply(const struct layer *l, const uint8_t *tables, const uint8_t *p, num n,
                    const int8_t *x, num stride, num rows, int32_t *sums) {
    if (!tuned(l)) return 0;
    if (rows == 2) sums_of(2, l, tables, p, n, x, stride, sums);
    else sums_of(1, l, tables, p, n, x, stride, sums);
    return 1;
}

static void unpack(const struct layer *l, const uint8_t *tables, const uint8_t *p, num n,
                   uint8_t *out) {
    struct sink s = {.out = out};
    if (tuned(l)) run(0, l, tables, p, n, &s);
    else unpack_any(l, p, n, out);
}

/* Some rows by vectors that are decoded already. */
INLINE void some(const int rows, const uint8_t *t, num step, num n, const int8_t *x, num stride,
                 int32_t *sums, num apart) {
    int32x4_t found[4][4];
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < 4; i++) found[r][i] = vld1q_s32(sums + r * apart + 4 * i);
    for (num v = 0; v < n; v++) {
        quarter w[4];
        for (int i = 0; i < 4; i++) w[i] = offset(load(t + v * step + 16 * i));
        for (int r = 0; r < rows; r++) {
            quarter inputs = four(x + r * stride + 4 * v);
            for (int i = 0; i < 4; i++) found[r][i] = dot(found[r][i], w[i], inputs);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < 4; i++) vst1q_s32(sums + r * apart + 4 * i, found[r][i]);
}

static void product(const uint8_t *t, num step, num n, const int8_t *x, num stride, num rows,
                    int32_t *sums, num apart) {
    for (; rows >= 4; rows -= 4, x += 4 * stride, sums += 4 * apart)
        some(4, t, step, n, x, stride, sums, apart);
    for (; rows > 0; rows--, x += stride, sums += apart)
        some(1, t, step, n, x, stride, sums, apart);
}

#include "driver.h"
