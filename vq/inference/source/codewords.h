/* AVX2: sub-vectors of four coordinates at a time. A dword is what a lane's codeword has of them, so
   that one look-up in memory serves four weights. */

/* Of every four coordinates, a row of the table: four bytes by index, magnitudes where there are
   signs. */
#define ENTRIES 256
#define TABLES (64 * ENTRIES)

INLINE half ones(void) { return _mm256_set1_epi8(1); }

/* Whether a layer's sub-vectors are whole dwords. */
static int has_dwords(const struct layer *l) {
    return (l->form == PLANES || l->form == BYTES) && l->k && l->d % 4 == 0;
}

static void prepare_dwords(const struct layer *l, uint8_t *tables) {
    for (num i = 0; i < l->k; i++)
        for (num e = 0; e < l->d; e += 4)
            memcpy(tables + e * ENTRIES + 4 * i, l->book + i * l->d + e, 4);
}

/* Bits of 32 lanes as bytes of ones. */
INLINE half lanes_of(const uint8_t *plane) {
    const half spread = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202,
                                           0x0303030303030303);
    const half bit = _mm256_set1_epi64x((int64_t)0x8040201008040201);
    int32_t bits;
    memcpy(&bits, plane, 4);
    half bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(bits), spread);
    return _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit);
}

/* Codes of 32 lanes whose bits are planes. */
INLINE half codes_of_planes(num bits, const uint8_t *p) {
    half codes = _mm256_setzero_si256();
    for (num b = 0; b < bits; b++) {
        half bit = _mm256_and_si256(lanes_of(p + 8 * b), _mm256_set1_epi8((char)(1 << b)));
        codes = _mm256_or_si256(codes, bit);
    }
    return codes;
}

/* Where a tile's indices are, in the tile or here. */
INLINE const uint8_t *indices_of(const struct layer *l, const uint8_t *p, uint8_t *space) {
    if (l->form == BYTES) return p;
    for (num side = 0; side < 2; side++)
        _mm256_storeu_si256((half *)(space + 32 * side), codes_of_planes(l->bits, p + 4 * side));
    return space;
}

/* Where a tile's planes of signs are, all of them, in the tile or here. */
INLINE const uint8_t *planes_of(const struct layer *l, const uint8_t *p, uint64_t *space) {
    const uint8_t *stored = p + 8 * l->bits;
    if (!l->signs || l->signs == l->d) return stored;
    memcpy(space, stored, 8 * l->signs);
    space[l->signs] = 0;
    for (num e = 0; e < l->signs; e++) space[l->signs] ^= space[e];
    return (const uint8_t *)space;
}

/* Signs of four coordinates, [8] words of lanes by coordinate from [coordinate] words of lanes. */
INLINE void words_of(const uint8_t *planes, uint32_t *words) {
    __m128i first = _mm_loadu_si128((const __m128i *)planes);
    __m128i second = _mm_loadu_si128((const __m128i *)(planes + 16));
    first = _mm_unpacklo_epi8(first, _mm_srli_si128(first, 8));
    second = _mm_unpacklo_epi8(second, _mm_srli_si128(second, 8));
    _mm_storeu_si128((__m128i *)words, _mm_unpacklo_epi16(first, second));
    _mm_storeu_si128((__m128i *)(words + 4), _mm_unpackhi_epi16(first, second));
}

/* For eight lanes 1 or, where a sign is negative, -1. */
INLINE half signs_of(uint32_t word) {
    const half lane = _mm256_setr_epi32(0x01010101, 0x02020202, 0x04040404, 0x08080808, 0x10101010,
                                        0x20202020, 0x40404040, (int)0x80808080);
    half own = _mm256_and_si256(_mm256_set1_epi32((int)word), lane);
    return _mm256_or_si256(_mm256_cmpeq_epi8(own, lane), ones());
}

/* Four coordinates of eight lanes. */
INLINE half eight(const uint8_t *table, const uint8_t *codes) {
    const int32_t *dwords = (const int32_t *)table;
    /* Else gcc works out all 64 places before the first look-up, and has no registers for them. */
    __asm__("" : "+r"(codes));
    return _mm256_setr_epi32(dwords[codes[0]], dwords[codes[1]], dwords[codes[2]],
                             dwords[codes[3]], dwords[codes[4]], dwords[codes[5]],
                             dwords[codes[6]], dwords[codes[7]]);
}

/* Sixteen inputs, four for each coordinate, as four coordinates for each column. */
INLINE half by_column(const int8_t *x) {
    const __m128i turn = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm256_broadcastsi128_si256(
        _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)x), turn));
}

/* Sums [16] of one row of inputs by n tiles. */
INLINE void sum_dwords(const int has_signs, const struct layer *l, const uint8_t *tables,
                       const uint8_t *p, num n, const int8_t *x, int32_t *sums) {
    half sum[8];
    uint8_t codes[LANES];
    uint64_t signs[64];
    uint32_t words[8];
    for (int i = 0; i < 8; i++) sum[i] = _mm256_setzero_si256();
    for (num t = 0; t < n; t++, p += l->tile_bytes) {
        for (num at = 0; at < l->tile_bytes; at += 64)
            _mm_prefetch((const char *)p + AHEAD + at, _MM_HINT_T0);
        const uint8_t *own = indices_of(l, p, codes), *planes = planes_of(l, p, signs);
        for (num e = 0; e < l->d; e += 4, x += 16) {
            half inputs = by_column(x);
            if (has_signs) words_of(planes + 8 * e, words);
#pragma GCC unroll 8
            for (int i = 0; i < 8; i++) {
                half w = eight(tables + e * ENTRIES, own + 8 * i);
                if (has_signs)
                    sum[i] = dot(sum[i], w, _mm256_sign_epi8(inputs, signs_of(words[i])));
                else
                    sum[i] = dot(sum[i], _mm256_abs_epi8(w), _mm256_sign_epi8(inputs, w));
            }
        }
    }
    for (int i = 0; i < 2; i++) {
        half low = _mm256_hadd_epi32(sum[4 * i], sum[4 * i + 1]);
        half high = _mm256_hadd_epi32(sum[4 * i + 2], sum[4 * i + 3]);
        int32_t both[8];
        _mm256_storeu_si256((half *)both, _mm256_hadd_epi32(low, high));
        for (int o = 0; o < 8; o++) sums[8 * i + o] = both[o % 2 * 4 + o / 2];
    }
}

static void sums_dwords(const struct layer *l, const uint8_t *tables, const uint8_t *p, num n,
                        const int8_t *x, int32_t *sums) {
    if (l->signs) sum_dwords(1, l, tables, p, n, x, sums);
    else sum_dwords(0, l, tables, p, n, x, sums);
}

/* Bytes of 16 lanes by four coordinates, [coordinate] of 64 lanes each. */
INLINE void store_turned(half first, half second, uint8_t *out) {
    const half turn = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    const half offset = _mm256_set1_epi8((char)128);
    first = _mm256_xor_si256(_mm256_shuffle_epi8(first, turn), offset);
    second = _mm256_xor_si256(_mm256_shuffle_epi8(second, turn), offset);
    __m128i a = _mm256_castsi256_si128(first), b = _mm256_extracti128_si256(first, 1);
    __m128i c = _mm256_castsi256_si128(second), d = _mm256_extracti128_si256(second, 1);
    __m128i low = _mm_unpacklo_epi32(a, b), more = _mm_unpacklo_epi32(c, d);
    _mm_storeu_si128((__m128i *)out, _mm_unpacklo_epi64(low, more));
    _mm_storeu_si128((__m128i *)(out + LANES), _mm_unpackhi_epi64(low, more));
    low = _mm_unpackhi_epi32(a, b), more = _mm_unpackhi_epi32(c, d);
    _mm_storeu_si128((__m128i *)(out + 2 * LANES), _mm_unpacklo_epi64(low, more));
    _mm_storeu_si128((__m128i *)(out + 3 * LANES), _mm_unpackhi_epi64(low, more));
}

static void unpack_dwords(const struct layer *l, const uint8_t *tables, const uint8_t *p, num n,
                          uint8_t *out) {
    uint8_t codes[LANES];
    uint64_t signs[64];
    uint32_t words[8];
    for (num t = 0; t < n; t++, p += l->tile_bytes) {
        const uint8_t *own = indices_of(l, p, codes), *planes = planes_of(l, p, signs);
        for (num e = 0; e < l->d; e += 4, out += 4 * LANES) {
            if (l->signs) words_of(planes + 8 * e, words);
            for (int i = 0; i < 8; i += 2) {
                half w[2];
                for (int j = 0; j < 2; j++) {
                    w[j] = eight(tables + e * ENTRIES, own + 8 * (i + j));
                    if (l->signs) w[j] = _mm256_sign_epi8(w[j], signs_of(words[i + j]));
                }
                store_turned(w[0], w[1], out + 8 * i);
            }
        }
    }
}
