/* A layer in tiles (vq/inference/tiles.py), and what every instruction set does alike. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

typedef int64_t num;

#define INLINE static inline __attribute__((always_inline))
#define ROWS 16
#define LANES 64
/* Sums of so many inputs stay in 32 bits, also where 128 is added to their weights. */
#define PIECE 32768
/* Vectors of 64 decoded weights that a product reads from the cache: 16 KiB. */
#define DECODED 256
/* Products of a weight and an input for which one more thread is worth waking. */
#define WORK (1 << 17)

enum { PLANES, BYTES, NIBBLES4, NIBBLES8, INT8, INT4 };

struct layer {
    num outputs, inputs, d, k, bits, signs, out, group, form;
    const uint8_t *tiles;
    const int8_t *book;     /* [k, d] */
    const float *scale;     /* [scales] */
    num scales;
    const uint16_t *groups; /* [blocks, ranges, 16] fp16 */
    const uint8_t *zeros;   /* the same; 2**(bits - 1) if NULL */
    const float *bias;      /* [outputs], or NULL */
    /* What follows from these. */
    num rows, columns, blocks;
    num width, ranges, range_tiles, row_tiles; /* columns of a range, and tiles of one and all */
    num tile_bytes;
    num given; /* vectors of inputs for a tile: with sub-vectors along outputs one, else d */
};

/* A run of tiles whose sums stay in 32 bits; `last` of its range. */
struct piece {
    num first, tiles, range, last;
};

static num lower(num a, num b) { return a < b ? a : b; }
static num up(num a, num b) { return (a + b - 1) / b; }

static num tiles_of(const struct layer *l, num columns) {
    num tiles = up(columns, 4);
    return l->form == NIBBLES8 || l->form == INT4 ? tiles + (tiles & 1) : tiles;
}

static struct layer layer_of(const num *shape, const uint8_t *tiles, const int8_t *book) {
    struct layer l = {
        .outputs = shape[0], .inputs = shape[1], .d = shape[2], .k = shape[3], .bits = shape[4],
        .signs = shape[5], .out = shape[6], .group = shape[7], .form = shape[8],
        .tiles = tiles, .book = book,
    };
    l.rows = l.out ? up(l.outputs, l.d) : l.outputs;
    l.columns = l.out ? l.inputs : up(l.inputs, l.d);
    l.blocks = up(l.rows, ROWS);
    l.width = l.group && l.group < l.columns ? l.group : l.columns;
    l.ranges = up(l.columns, l.width);
    l.range_tiles = tiles_of(&l, l.width);
    l.row_tiles = (l.ranges - 1) * l.range_tiles
        + tiles_of(&l, l.columns - (l.ranges - 1) * l.width);
    l.tile_bytes = 8 * (l.bits + l.signs);
    l.given = l.out ? 1 : l.d;
    return l;
}

/* All pieces, in order; the caller frees them. */
static struct piece *pieces_of(const struct layer *l, num *count) {
    num most = PIECE / (4 * l->given) & ~(num)1;
    num room = l->ranges * up(l->range_tiles, most);
    struct piece *pieces = malloc(room * sizeof(struct piece));
    *count = 0;
    for (num r = 0; pieces && r < l->ranges; r++) {
        num first = r * l->range_tiles, end = lower(first + l->range_tiles, l->row_tiles);
        for (; first < end; first += most) {
            num tiles = lower(most, end - first);
            pieces[(*count)++] = (struct piece){first, tiles, r, first + tiles == end};
        }
    }
    return pieces;
}

/* Eight bytes of eight bits: bit j of byte i to bit i of byte j. */
INLINE uint64_t transposed(uint64_t x) {
    uint64_t t = (x ^ x >> 7) & 0x00aa00aa00aa00aa;
    x ^= t ^ t << 7;
    t = (x ^ x >> 14) & 0x0000cccc0000cccc;
    x ^= t ^ t << 14;
    t = (x ^ x >> 28) & 0x00000000f0f0f0f0;
    return x ^ t ^ t << 28;
}

/* Indices or codes of the 64 lanes of a tile, and for each weight of a lane a word of signs. */
static inline void codes_of(const struct layer *l, const uint8_t *p, num second, uint8_t *codes,
                            uint64_t *signs) {
    const uint8_t *own = l->form == NIBBLES8 ? p + LANES * second : p, *rest = p + 2 * LANES;
    switch (l->form) {
    case PLANES:
        for (num g = 0; g < 8; g++) {
            uint64_t planes = 0;
            for (num b = 0; b < l->bits; b++) planes |= (uint64_t)p[8 * b + g] << 8 * b;
            planes = transposed(planes);
            memcpy(codes + 8 * g, &planes, 8);
        }
        break;
    case BYTES:
    case INT8: memcpy(codes, p, LANES); break;
    case INT4:
        for (num i = 0; i < LANES; i++) codes[i] = p[i] >> 4 * second & 15;
        break;
    default:
        for (num i = 0; i < LANES; i++) codes[i] = own[i] & 15;
        for (num g = 0; g < 8; g++) {
            uint64_t bytes, more;
            memcpy(&bytes, own + 8 * g, 8);
            memcpy(&more, rest + 8 * g, l->form == NIBBLES8 ? 8 : 0);
            bytes = transposed(bytes) >> 32;
            more = transposed(more) >> 32 * second;
            for (num e = 0; e < l->signs; e++)
                ((uint8_t *)(signs + e))[g] = (uint8_t)(e < 4 ? bytes >> 8 * e : more >> 8 * (e - 4));
        }
        return;
    }
    memcpy(signs, p + 8 * l->bits, 8 * l->signs);
    if (l->signs && l->signs < l->d) {
        signs[l->signs] = 0;
        for (num e = 0; e < l->signs; e++) signs[l->signs] ^= signs[e];
    }
}

/* A byte of ones for each bit that is one. */
INLINE uint64_t spread(uint64_t bits) {
    const uint64_t low = 0x7f7f7f7f7f7f7f7f, one = 0x0101010101010101;
    uint64_t x = bits * one & 0x8040201008040201;
    return (((x & low) + low | x) >> 7 & one) * 255;
}

INLINE void codewords_of(const struct layer *l, num d, const uint8_t *codes, const uint64_t *signs,
                         uint8_t *out) {
    uint8_t lanes[LANES * 64];
    for (num i = 0; i < LANES; i++) memcpy(lanes + i * d, l->book + codes[i] * d, d);
    for (num e = 0; e < d; e++, out += LANES) {
        for (num i = 0; i < LANES; i++) out[i] = lanes[i * d + e] ^ 128;
        for (num g = 0; l->signs && g < 8; g++) {
            uint64_t negative = spread(signs[e] >> 8 * g & 255), t;
            memcpy(&t, out + 8 * g, 8);
            t = (t ^ negative) + (negative & 0x0101010101010101); /* none of these bytes is 0 */
            memcpy(out + 8 * g, &t, 8);
        }
    }
}

/* Decode n tiles to 128 plus the weight, [n, d, 64] bytes; of scalars 128 plus the code. */
static inline void unpack_any(const struct layer *l, const uint8_t *p, num n, uint8_t *out) {
    uint8_t codes[LANES];
    uint64_t signs[65];
    num paired = l->form == NIBBLES8 || l->form == INT4;
    for (num t = 0; t < n; t++, out += l->d * LANES) {
        num second = paired && t % 2;
        codes_of(l, p + (t - second) * l->tile_bytes, second, codes, signs);
        if (!l->k)
            for (num i = 0; i < LANES; i++) out[i] = l->form == INT8 ? codes[i] : codes[i] | 128;
        else if (l->d == 4) codewords_of(l, 4, codes, signs, out);
        else if (l->d == 8) codewords_of(l, 8, codes, signs, out);
        else codewords_of(l, l->d, codes, signs, out);
    }
}

/* fp16 as fp32. */
static float widened(uint16_t half) {
    union { uint32_t bits; float value; } scaled = {(uint32_t)(half & 0x7fff) << 13};
    scaled.value *= 0x1p112f; /* exact: what is subnormal in fp16 is not in fp32 */
    scaled.bits |= (uint32_t)(half & 0x8000) << 16;
    return scaled.value;
}

/* Bring values of inputs [inputs], or what lies beyond them, into vectors of tiles. */
#define ARRANGE(name, type)                                                                        \
    INLINE void name##_by(const struct layer *l, num d, const type *q, type *x) {                  \
        for (num r = 0; r < l->ranges; r++) {                                                      \
            type *to = x + r * l->range_tiles * d * 4;                                             \
            num end = lower((r + 1) * l->width, l->columns);                                       \
            for (num c = r * l->width; c < end; c += 4, to += 4 * d)                               \
                for (num j = 0; j < lower(4, end - c); j++)                                        \
                    for (num e = 0; e < d; e++) to[4 * e + j] = q[(c + j) * d + e];                \
        }                                                                                          \
    }                                                                                              \
    static void name(const struct layer *l, const type *q, type *x) {                              \
        switch (l->given) {                                                                        \
        case 1: name##_by(l, 1, q, x); break;                                                      \
        case 4: name##_by(l, 4, q, x); break;                                                      \
        case 8: name##_by(l, 8, q, x); break;                                                      \
        default: name##_by(l, l->given, q, x);                                                     \
        }                                                                                          \
    }
ARRANGE(arrange, int8_t)
ARRANGE(arrange_floats, float)

/* Round a token to digits [1 or 2][padded]; what one of the whole numbers is worth. */
static float rounded(const float *x, num n, num padded, int digits, int8_t *q) {
    uint32_t peak = 0;
    for (num i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, 4);
        bits &= 0x7fffffff;
        peak = bits > peak ? bits : peak;
    }
    memset(q, 0, digits * padded);
    float most;
    memcpy(&most, &peak, 4);
    if (peak >= 0x7f800000) return most - most; /* NaN */
    float factor = (digits == 1 ? 127.0f : 32512.0f) / most;
    factor = factor < 0x1p126f ? factor : 0x1p126f;
    /* Adding and taking this away rounds to the nearest whole number, ties to even. */
    const float round = 12582912.0f;
    if (digits == 1) {
        for (num i = 0; i < n; i++) q[i] = (int8_t)(int32_t)(x[i] * factor + round - round);
    } else {
        for (num i = 0; i < n; i++) {
            float whole = x[i] * factor + round - round;
            float high = whole * (1 / 255.0f) + round - round; /* 255 is odd: there are no ties */
            q[i] = (int8_t)(int32_t)high;
            q[padded + i] = (int8_t)(int32_t)(whole - 255 * high);
        }
    }
    return 1 / factor;
}
