/* AVX2: Haswell, Zen. Half a tile is a register: eight outputs. */

#include <immintrin.h>

#include "layer.h"

#define OFFSET 0
#define DIRECT 2
#define AHEAD 4096

typedef __m256i half;

INLINE half load(const void *p) { return _mm256_loadu_si256(p); }

INLINE half four(const int8_t *x) {
    int32_t inputs;
    memcpy(&inputs, x, 4);
    return _mm256_set1_epi32(inputs);
}

/* Sums of two products fit 16 bits once the sign of a weight is with x: 2 * 128 * 127. */
INLINE half dot(half sum, half magnitudes, half x) {
    half pairs = _mm256_maddubs_epi16(magnitudes, x);
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

#include "codewords.h"

INLINE half dot_any(half sum, half t, half x) {
    half w = _mm256_xor_si256(t, _mm256_set1_epi8((char)128));
    return dot(sum, _mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
}

/* What one half of each tile is for: sums of rows, or, of no rows, the place where it is kept. */
struct sink {
    half sums[4];
    const int8_t *x;
    num stride;
    uint8_t *out;
};

INLINE void keep(struct sink *s, num vector, half t) {
    _mm256_storeu_si256((half *)(s->out + LANES * vector), t);
}

/* Add a coordinate: `signs` holds the sign in the highest bit of each byte, and no zero byte. */
INLINE void emit(const int rows, struct sink *s, num vector, const int chain, half magnitudes,
                 half signs) {
    if (rows == 0) {
        half w = _mm256_sign_epi8(magnitudes, signs);
        keep(s, vector, _mm256_xor_si256(w, _mm256_set1_epi8((char)128)));
        return;
    }
    for (int r = 0; r < rows; r++) {
        half *sum = s->sums + chain % (4 / rows) * rows + r;
        half x = _mm256_sign_epi8(four(s->x + r * s->stride + 4 * vector), signs);
        *sum = dot(*sum, magnitudes, x);
    }
}

/* Four weights a lane from bytes that hold an index and, above, four signs; `marked` is not 0. */
INLINE void nibbles(const int rows, struct sink *s, const half *tables, half index, half marked,
                    num vector) {
    emit(rows, s, vector, 0, _mm256_shuffle_epi8(tables[0], index), _mm256_slli_epi16(marked, 3));
    emit(rows, s, vector + 1, 1, _mm256_shuffle_epi8(tables[1], index),
         _mm256_slli_epi16(marked, 2));
    emit(rows, s, vector + 2, 2, _mm256_shuffle_epi8(tables[2], index),
         _mm256_slli_epi16(marked, 1));
    emit(rows, s, vector + 3, 3, _mm256_shuffle_epi8(tables[3], index), marked);
}

INLINE void run_nibbles4(const int rows, const half *tables, const uint8_t *p, num n,
                         struct sink *s) {
    const half low = _mm256_set1_epi8(15), one = _mm256_set1_epi8(1);
    for (num t = 0; t < n; t++, p += LANES) {
        _mm_prefetch((const char *)p + AHEAD, _MM_HINT_T0);
        half byte = load(p);
        nibbles(rows, s, tables, _mm256_and_si256(byte, low), _mm256_or_si256(byte, one), 4 * t);
    }
}

INLINE void run_nibbles8(const int rows, const half *tables, const uint8_t *p, num n,
                         struct sink *s) {
    const half low = _mm256_set1_epi8(15), one = _mm256_set1_epi8(1);
    for (num t = 0; t < n; t += 2, p += 192) {
        for (int i = 0; i < 3; i++) _mm_prefetch((const char *)p + AHEAD + 64 * i, _MM_HINT_T0);
        half first = load(p), second = load(p + 64), rest = load(p + 128);
        half index = _mm256_and_si256(first, low);
        nibbles(rows, s, tables, index, _mm256_or_si256(first, one), 8 * t);
        nibbles(rows, s, tables + 4, index, _mm256_or_si256(_mm256_slli_epi16(rest, 4), one),
                8 * t + 4);
        index = _mm256_and_si256(second, low);
        nibbles(rows, s, tables, index, _mm256_or_si256(second, one), 8 * t + 8);
        nibbles(rows, s, tables + 4, index, _mm256_or_si256(rest, one), 8 * t + 12);
    }
}

INLINE void run_int8(const int rows, const uint8_t *p, num n, struct sink *s) {
#pragma GCC unroll 4
    for (num t = 0; t < n; t++) {
        _mm_prefetch((const char *)p + 64 * t + AHEAD, _MM_HINT_T0);
        half w = _mm256_xor_si256(load(p + 64 * t), _mm256_set1_epi8((char)128));
        emit(rows, s, t, 0, _mm256_abs_epi8(w), w);
    }
}

/* Codes of two tiles, no larger than 15: their sums fit 16 bits, too. */
INLINE void emit_codes(const int rows, struct sink *s, num vector, half first, half second) {
    const half offset = _mm256_set1_epi8((char)128), one = _mm256_set1_epi16(1);
    if (rows == 0) {
        keep(s, vector, _mm256_or_si256(first, offset));
        keep(s, vector + 1, _mm256_or_si256(second, offset));
        return;
    }
    for (int r = 0; r < rows; r++) {
        const int8_t *x = s->x + r * s->stride + 4 * vector;
        half pairs = _mm256_add_epi16(_mm256_maddubs_epi16(first, four(x)),
                                      _mm256_maddubs_epi16(second, four(x + 4)));
        s->sums[r] = _mm256_add_epi32(s->sums[r], _mm256_madd_epi16(pairs, one));
    }
}

INLINE void run_int4(const int rows, const uint8_t *p, num n, struct sink *s) {
    const half low = _mm256_set1_epi8(15);
    for (num t = 0; t < n; t += 2, p += 64) {
        _mm_prefetch((const char *)p + AHEAD, _MM_HINT_T0);
        half codes = load(p), first = _mm256_and_si256(codes, low);
        emit_codes(rows, s, t, first, _mm256_and_si256(_mm256_srli_epi16(codes, 4), low));
    }
}

/* Codes of scalars in planes; `p` is where the planes of this half begin. */
INLINE void run_codes(const int rows, const struct layer *l, const uint8_t *p, num n,
                      struct sink *s) {
    num t = 0;
    for (; t + 2 <= n; t += 2, p += 2 * l->tile_bytes)
        emit_codes(rows, s, t, codes_of_planes(l->bits, p),
                   codes_of_planes(l->bits, p + l->tile_bytes));
    half last = t < n ? codes_of_planes(l->bits, p) : _mm256_setzero_si256();
    if (t == n) return;
    if (rows == 0) keep(s, t, _mm256_or_si256(last, _mm256_set1_epi8((char)128)));
    for (int r = 0; r < rows; r++)
        s->sums[r] = dot(s->sums[r], last, four(s->x + r * s->stride + 4 * t));
}

static int tuned(const struct layer *l) {
    return l->bits <= 8 && (!l->k || has_dwords(l) || l->form == NIBBLES4 || l->form == NIBBLES8);
}

static void prepare(const struct layer *l, uint8_t *tables) {
    if (has_dwords(l)) prepare_dwords(l, tables);
    if (l->form != NIBBLES4 && l->form != NIBBLES8) return;
    for (num e = 0; e < l->d; e++) /* of every coordinate, the magnitude by index, twice */
        for (num i = 0; i < 32; i++)
            tables[32 * e + i] = i % 16 < l->k ? (uint8_t)l->book[i % 16 * l->d + e] : 0;
}

/* One half of all tiles. */
INLINE void run_half(const int rows, const int side, const struct layer *l, const uint8_t *tables,
                     const uint8_t *p, num n, struct sink *s) {
    switch (l->form) {
    case NIBBLES4: run_nibbles4(rows, (const half *)tables, p + 32 * side, n, s); return;
    case NIBBLES8: run_nibbles8(rows, (const half *)tables, p + 32 * side, n, s); return;
    case INT8: run_int8(rows, p + 32 * side, n, s); return;
    case INT4: run_int4(rows, p + 32 * side, n, s); return;
    default: run_codes(rows, l, p + 4 * side, n, s); return;
    }
}

INLINE void run(const int rows, const struct layer *l, const uint8_t *tables, const uint8_t *p,
                num n, const int8_t *x, num stride, int32_t *sums) {
    for (int side = 0; side < 2; side++) {
        struct sink s = {.x = x, .stride = stride};
        for (int i = 0; i < 4; i++) s.sums[i] = _mm256_setzero_si256();
        run_half(rows, side, l, tables, p, n, &s);
        for (int r = 0; r < rows; r++) {
            half sum = s.sums[r];
            for (int c = 1; c < 4 / rows; c++) sum = _mm256_add_epi32(sum, s.sums[c * rows + r]);
            _mm256_storeu_si256((half *)(sums + ROWS * r + 8 * side), sum);
        }
    }
}

#define SUMS(rows)                                                                                 \
    static void sums_##rows(const struct layer *l, const uint8_t *tables, const uint8_t *p, num n, \
                            const int8_t *x, num stride, int32_t *sums) {                          \
        run(rows, l, tables, p, n, x, stride, sums);                                               \
    }
SUMS(1)
SUMS(2)

static int multiply(const struct layer *l, const uint8_t *tables, const uint8_t *p, num n,
                    const int8_t *x, num stride, num rows, int32_t *sums) {
    if (!tuned(l)) return 0;
    if (has_dwords(l)) { /* two rows would need more registers than there are */
        if (rows == 1) sums_dwords(l, tables, p, n, x, sums);
        return rows == 1;
    }
    (rows == 2 ? sums_2 : sums_1)(l, tables, p, n, x, stride, sums);
    return 1;
}

static void unpack(const struct layer *l, const uint8_t *tables, const uint8_t *p, num n,
                   uint8_t *out) {
    if (has_dwords(l)) unpack_dwords(l, tables, p, n, out);
    else if (!tuned(l)) unpack_any(l, p, n, out);
    else
        for (int side = 0; side < 2; side++) {
            struct sink s = {.out = out + 32 * side};
            run_half(0, side, l, tables, p, n, &s);
        }
}

/* Some rows by vectors that are decoded already. */
INLINE void some(const int rows, const uint8_t *t, num step, num n, const int8_t *x, num stride,
                 int32_t *sums, num apart) {
    half found[2 * 4];
#pragma GCC unroll 8
    for (int i = 0; i < 2 * rows; i++) found[i] = load(sums + i / 2 * apart + 8 * (i % 2));
    for (num v = 0; v < n; v++) {
        half first = load(t + v * step), second = load(t + v * step + 32);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            half inputs = four(x + r * stride + 4 * v);
            found[2 * r] = dot_any(found[2 * r], first, inputs);
            found[2 * r + 1] = dot_any(found[2 * r + 1], second, inputs);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < 2 * rows; i++)
        _mm256_storeu_si256((half *)(sums + i / 2 * apart + 8 * (i % 2)), found[i]);
}

static void product(const uint8_t *t, num step, num n, const int8_t *x, num stride, num rows,
                    int32_t *sums, num apart) {
    for (; rows >= 4; rows -= 4, x += 4 * stride, sums += 4 * apart)
        some(4, t, step, n, x, stride, sums, apart);
    for (; rows > 0; rows--, x += stride, sums += apart)
        some(1, t, step, n, x, stride, sums, apart);
}

#include "driver.h"
