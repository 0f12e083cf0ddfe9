/* AVX-512, with VNNI and VBMI where the including file's flags have them. */

#include <immintrin.h>

#include "layer.h"

#define DIRECT 4
/* Of every coordinate of a codeword, a row of the table: 128 plus the weight by index. */
#define ENTRIES 256
#define TABLES (64 * ENTRIES)

typedef __m512i wide;

#ifdef __AVX512VNNI__
#define OFFSET 128
INLINE wide dot(wide sum, wide t, wide x) { return _mm512_dpbusd_epi32(sum, t, x); }
#else
#define OFFSET 0
/* Sums of two products fit 16 bits once the sign of a weight is with x: 2 * 128 * 127. */
INLINE wide dot(wide sum, wide t, wide x) {
    wide w = _mm512_xor_si512(t, _mm512_set1_epi8((char)128));
    wide signed_x = _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(w), _mm512_setzero_si512(), x);
    wide pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(w), signed_x);
    return _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
}
#endif

INLINE wide load(const void *p) { return _mm512_loadu_si512(p); }

/* Four inputs for all outputs. */
INLINE wide four(const int8_t *x) {
    int32_t inputs;
    memcpy(&inputs, x, 4);
    return _mm512_set1_epi32(inputs);
}

INLINE wide sixteen(const uint8_t *row) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)row));
}

/* -t modulo 256 is 128 minus the weight where t is 128 plus it. */
INLINE wide negated(wide t, __mmask64 where) {
    return _mm512_mask_sub_epi8(t, where, _mm512_setzero_si512(), t);
}

INLINE __mmask64 mask_of(const uint8_t *p) {
    uint64_t bits;
    memcpy(&bits, p, 8);
    return bits;
}

/* Of the bits of two registers, the first's where asked for. */
INLINE wide merged(wide where, wide yes, wide no) {
    return _mm512_ternarylogic_epi32(where, yes, no, 0xca);
}

/* What a decoded vector is for: sums of rows, or, of no rows, the place where it is kept.
   `chain` says which of the sums, so that one need not wait for the other. */
struct sink {
    wide sums[4];
    const int8_t *x;
    num stride;
    uint8_t *out;
};

INLINE void emit(const int rows, struct sink *s, num vector, const int chain, wide t) {
    if (rows == 0) {
        _mm512_storeu_si512(s->out + LANES * vector, t);
        return;
    }
    const int chains = 4 / rows;
    for (int r = 0; r < rows; r++) {
        wide *sum = s->sums + chain % chains * rows + r;
        *sum = dot(*sum, t, four(s->x + r * s->stride + 4 * vector));
    }
}

INLINE void close_sink(const int rows, struct sink *s, int32_t *sums) {
    for (int r = 0; r < rows; r++) {
        wide sum = s->sums[r];
        for (int c = 1; c < 4 / rows; c++) sum = _mm512_add_epi32(sum, s->sums[c * rows + r]);
        _mm512_storeu_si512(sums + ROWS * r, sum);
    }
}

#define AHEAD 4096

/* Four weights a lane from bytes that hold an index and four signs. */
INLINE void nibbles(const int rows, struct sink *s, const wide *tables, wide byte, num vector) {
    const wide low = _mm512_set1_epi8(15);
#ifdef __AVX512VBMI__
    emit(rows, s, vector, 0, _mm512_permutexvar_epi8(byte, tables[0]));
    emit(rows, s, vector + 1, 1, _mm512_permutexvar_epi8(byte, tables[1]));
    byte = merged(low, byte, _mm512_srli_epi16(byte, 2));
    emit(rows, s, vector + 2, 2, _mm512_permutexvar_epi8(byte, tables[2]));
    emit(rows, s, vector + 3, 3, _mm512_permutexvar_epi8(byte, tables[3]));
#else
    wide index = _mm512_and_si512(byte, low);
#pragma GCC unroll 4
    for (int e = 0; e < 4; e++) {
        __mmask64 sign = _mm512_test_epi8_mask(byte, _mm512_set1_epi8((char)(16 << e)));
        emit(rows, s, vector + e, e, negated(_mm512_shuffle_epi8(tables[e], index), sign));
    }
#endif
}

INLINE void run_nibbles4(const int rows, const wide *tables, const uint8_t *p, num n,
                         struct sink *s) {
    wide own[4];
    for (int e = 0; e < 4; e++) own[e] = tables[e];
    for (num t = 0; t < n; t++) {
        _mm_prefetch((const char *)p + AHEAD, _MM_HINT_T0);
        nibbles(rows, s, own, load(p), 4 * t);
        p += LANES;
    }
}

INLINE void run_nibbles8(const int rows, const wide *tables, const uint8_t *p, num n,
                         struct sink *s) {
    const wide low = _mm512_set1_epi8(15);
    wide own[8];
    for (int e = 0; e < 8; e++) own[e] = tables[e];
    for (num t = 0; t < n; t += 2) {
        for (int i = 0; i < 3; i++) _mm_prefetch((const char *)p + AHEAD + 64 * i, _MM_HINT_T0);
        wide first = load(p), second = load(p + 64), rest = load(p + 128);
        nibbles(rows, s, own, first, 8 * t);
        nibbles(rows, s, own + 4, merged(low, first, _mm512_slli_epi16(rest, 4)), 8 * t + 4);
        nibbles(rows, s, own, second, 8 * t + 8);
        nibbles(rows, s, own + 4, merged(low, second, rest), 8 * t + 12);
        p += 192;
    }
}

INLINE void run_int8(const int rows, const uint8_t *p, num n, struct sink *s) {
    num t = 0;
    for (; t + 4 <= n; t += 4)
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            _mm_prefetch((const char *)p + 64 * (t + i) + AHEAD, _MM_HINT_T0);
            emit(rows, s, t + i, i, load(p + 64 * (t + i)));
        }
    for (; t < n; t++) emit(rows, s, t, 0, load(p + 64 * t));
}

INLINE void run_int4(const int rows, const uint8_t *p, num n, struct sink *s) {
    const wide low = _mm512_set1_epi8(15), offset = _mm512_set1_epi8((char)128);
#pragma GCC unroll 2
    for (num t = 0; t < n; t += 2) {
        wide codes = load(p + 32 * t);
        _mm_prefetch((const char *)p + 32 * t + AHEAD, _MM_HINT_T0);
        emit(rows, s, t, 0, _mm512_ternarylogic_epi32(codes, low, offset, 0xea));
        emit(rows, s, t + 1, 1,
             _mm512_ternarylogic_epi32(_mm512_srli_epi16(codes, 4), low, offset, 0xea));
    }
}

/* Indices of a tile whose bits are planes. */
INLINE wide index_of(const int bits, num planes, const uint8_t *p) {
    if (bits == 8) return load(p);
    wide index = _mm512_setzero_si512();
    for (num b = 0; b < planes; b++)
        index = _mm512_mask_add_epi8(index, mask_of(p + 8 * b), index,
                                     _mm512_set1_epi8((char)(1 << b)));
    return index;
}

/* Entries of a row of the table by indices of `bits` bits. */
INLINE wide looked_up(const int bits, const uint8_t *row, wide index) {
    if (bits <= 4) return _mm512_shuffle_epi8(sixteen(row), index);
#ifdef __AVX512VBMI__
    if (bits <= 6) return _mm512_permutexvar_epi8(index, load(row));
    wide low = _mm512_permutex2var_epi8(load(row), index, load(row + 64));
    if (bits == 7) return low;
    wide high = _mm512_permutex2var_epi8(load(row + 128), index, load(row + 192));
    return _mm512_mask_blend_epi8(_mm512_movepi8_mask(index), low, high);
#else
    /* The lower four bits look up in all tables of 16; each other bit halves what is left. */
    wide nibble = _mm512_and_si512(index, _mm512_set1_epi8(15)), found[16];
    const int tables = 1 << (bits - 4);
#pragma GCC unroll 16
    for (int i = 0; i < tables; i++) found[i] = _mm512_shuffle_epi8(sixteen(row + 16 * i), nibble);
#pragma GCC unroll 4
    for (int b = 4; b < bits; b++) {
        __mmask64 high = _mm512_test_epi8_mask(index, _mm512_set1_epi8((char)(1 << b)));
#pragma GCC unroll 8
        for (int i = 0; i < tables >> (b - 3); i++)
            found[i] = _mm512_mask_blend_epi8(high, found[2 * i], found[2 * i + 1]);
    }
    return found[0];
#endif
}

/* Any sub-vectors of up to 8 bits, a few tiles at a time for each row of the table. */
INLINE void run_few(const int rows, const int bits, const int few, const struct layer *l,
                    const uint8_t *tables, const uint8_t *p, num vector, struct sink *s) {
    wide index[4];
    __mmask64 parity[4];
    const uint8_t *signs = p + 8 * l->bits;
#pragma GCC unroll 4
    for (int i = 0; i < few; i++) {
        index[i] = index_of(bits, l->bits, p + i * l->tile_bytes);
        parity[i] = 0;
    }
    for (num e = 0; e < l->d; e++) {
#pragma GCC unroll 4
        for (int i = 0; i < few; i++) {
            wide t = looked_up(bits, tables + ENTRIES * e, index[i]);
            if (e < l->signs) {
                __mmask64 sign = mask_of(signs + i * l->tile_bytes + 8 * e);
                if (l->signs < l->d) parity[i] ^= sign;
                t = negated(t, sign);
            } else if (l->signs) {
                t = negated(t, parity[i]);
            }
            emit(rows, s, vector + i * l->d + e, i, t);
        }
    }
}

INLINE void run_any(const int rows, const int bits, const struct layer *l, const uint8_t *tables,
                    const uint8_t *p, num n, struct sink *s) {
    num t = 0;
    for (; t + 4 <= n; t += 4) {
        for (num at = 0; at < 4 * l->tile_bytes; at += 64)
            _mm_prefetch((const char *)p + AHEAD + at, _MM_HINT_T0);
        run_few(rows, bits, 4, l, tables, p, t * l->d, s);
        p += 4 * l->tile_bytes;
    }
    for (; t < n; t++, p += l->tile_bytes) run_few(rows, bits, 1, l, tables, p, t * l->d, s);
}

/* Codes of scalars in planes. */
INLINE void run_codes(const int rows, const struct layer *l, const uint8_t *p, num n,
                      struct sink *s) {
    const wide offset = _mm512_set1_epi8((char)128);
    num t = 0;
    for (; t + 4 <= n; t += 4)
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++, p += l->tile_bytes)
            emit(rows, s, t + i, i, _mm512_or_si512(index_of(0, l->bits, p), offset));
    for (; t < n; t++, p += l->tile_bytes)
        emit(rows, s, t, 0, _mm512_or_si512(index_of(0, l->bits, p), offset));
}

static int tuned(const struct layer *l) { return l->bits <= 8; }

/* Rows that are multiplied as they are decoded; above them, decoding apart costs less. */
static num direct_rows(const struct layer *l) {
    return l->form == BYTES || l->form == PLANES ? 2 : DIRECT;
}

static void prepare(const struct layer *l, uint8_t *tables) {
    if (!l->k) return;
    if (l->form == NIBBLES4 || l->form == NIBBLES8) {
        for (num e = 0; e < l->d; e++)
            for (num i = 0; i < LANES; i++) {
                int w = i % 16 < l->k ? l->book[i % 16 * l->d + e] : 0;
#ifdef __AVX512VBMI__
                if (i >> (4 + e % 2) & 1) w = -w;
#endif
                tables[LANES * e + i] = (uint8_t)(128 + w);
            }
        return;
    }
    for (num e = 0; e < l->d; e++)
        for (num i = 0; i < l->k; i++) tables[ENTRIES * e + i] = (uint8_t)(128 + l->book[i * l->d + e]);
}

INLINE void run(const int rows, const struct layer *l, const uint8_t *tables, const uint8_t *p,
                num n, struct sink *s) {
    switch (l->form) {
    case NIBBLES4: run_nibbles4(rows, (const wide *)tables, p, n, s); return;
    case NIBBLES8: run_nibbles8(rows, (const wide *)tables, p, n, s); return;
    case INT8: run_int8(rows, p, n, s); return;
    case INT4: run_int4(rows, p, n, s); return;
    case BYTES: if (rows <= 2) run_any(rows, 8, l, tables, p, n, s); return;
    }
    if (rows > 2) return;
    if (!l->k) run_codes(rows, l, p, n, s);
    else if (l->bits <= 4) run_any(rows, 4, l, tables, p, n, s);
#ifdef __AVX512VBMI__
    else if (l->bits <= 6) run_any(rows, 6, l, tables, p, n, s);
#else
    else if (l->bits == 5) run_any(rows, 5, l, tables, p, n, s);
    else if (l->bits == 6) run_any(rows, 6, l, tables, p, n, s);
#endif
    else run_any(rows, 7, l, tables, p, n, s);
}

#define SUMS(rows)                                                                                 \
    static void sums_##rows(const struct layer *l, const uint8_t *tables, const uint8_t *p, num n, \
                            const int8_t *x, num stride, int32_t *sums) {                          \
        struct sink s = {.x = x, .stride = stride};                                                \
        for (int i = 0; i < 4; i++) s.sums[i] = _mm512_setzero_si512();                            \
        run(rows, l, tables, p, n, &s);                                                            \
        close_sink(rows, &s, sums);                                                                \
    }
SUMS(1)
SUMS(2)
SUMS(4)

static int multiply(const struct layer *l, const uint8_t *tables, const uint8_t *p, num n,
                    const int8_t *x, num stride, num rows, int32_t *sums) {
    if (rows > direct_rows(l)) return 0;
    for (num r = 0; r < rows;) {
        num left = rows - r, now = left >= 4 ? 4 : left >= 2 ? 2 : 1;
        (now == 4 ? sums_4 : now == 2 ? sums_2 : sums_1)(l, tables, p, n, x + r * stride, stride,
                                                         sums + ROWS * r);
        r += now;
    }
    return 1;
}

static void unpack(const struct layer *l, const uint8_t *tables, const uint8_t *p, num n,
                   uint8_t *out) {
    struct sink s = {.out = out};
    run(0, l, tables, p, n, &s);
}

/* Some rows by vectors that are decoded already. */
INLINE void some(const int rows, const uint8_t *t, num step, num n, const int8_t *x, num stride,
                 int32_t *sums, num apart) {
    wide found[16];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) found[r] = load(sums + r * apart);
    for (num v = 0; v < n; v++) {
        wide w = load(t + v * step);
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) found[r] = dot(found[r], w, four(x + r * stride + 4 * v));
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) _mm512_storeu_si512(sums + r * apart, found[r]);
}

static void product(const uint8_t *t, num step, num n, const int8_t *x, num stride, num rows,
                    int32_t *sums, num apart) {
    while (rows > 0) {
        num now = rows >= 16 ? 16 : rows >= 8 ? 8 : rows >= 4 ? 4 : rows >= 2 ? 2 : 1;
        if (now == 16) some(16, t, step, n, x, stride, sums, apart);
        else if (now == 8) some(8, t, step, n, x, stride, sums, apart);
        else if (now == 4) some(4, t, step, n, x, stride, sums, apart);
        else if (now == 2) some(2, t, step, n, x, stride, sums, apart);
        else some(1, t, step, n, x, stride, sums, apart);
        rows -= now, x += now * stride, sums += now * apart;
    }
}

#include "driver.h"
