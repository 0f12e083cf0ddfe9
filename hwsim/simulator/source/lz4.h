// The two functions of liblz4 that Verilator's writer of FST calls, so that it need not be installed.
//
// LZ4's block format: a token with two lengths of four bits, literals, a distance, the rest of the
// lengths in bytes of 255. A block ends with at least five literals, and its last match begins at
// least twelve bytes before the end. Greedy, by a table of places where four bytes occurred last.
#pragma once
#include <stdint.h>
#include <string.h>

static inline int LZ4_compressBound(int size) { return size + size / 255 + 16; }

static inline uint8_t *lz4_length(uint8_t *to, int rest)
{
    for (; rest >= 255; rest -= 255) *to++ = 255;
    *to++ = (uint8_t)rest;
    return to;
}

static inline uint8_t *lz4_sequence(uint8_t *to, const uint8_t *literals, int count, int distance,
                                    int match)
{
    uint8_t *token = to++;
    *token = (uint8_t)((count < 15 ? count : 15) << 4);
    if (count >= 15) to = lz4_length(to, count - 15);
    memcpy(to, literals, (size_t)count);
    to += count;
    if (!match) return to;
    *to++ = (uint8_t)distance;
    *to++ = (uint8_t)(distance >> 8);
    match -= 4;
    *token |= (uint8_t)(match < 15 ? match : 15);
    return match >= 15 ? lz4_length(to, match - 15) : to;
}

/* `room` is at least LZ4_compressBound(size): what is written always fits. */
static inline int LZ4_compress_default(const char *source, char *target, int size, int room)
{
    enum { BITS = 12, FAR = 65535, BEFORE_END = 12, LITERALS_AT_END = 5 };
    const uint8_t *from = (const uint8_t *)source;
    uint8_t *to = (uint8_t *)target;
    int seen[1 << BITS], begin = 0, at = 0;
    (void)room;
    memset(seen, -1, sizeof seen);
    while (at < size - BEFORE_END) {
        uint32_t word;
        memcpy(&word, from + at, sizeof word);
        int *place = &seen[word * 2654435761u >> (32 - BITS)], match = *place, length = 4;
        *place = at;
        if (match < 0 || at - match > FAR || memcmp(from + match, from + at, 4)) {
            at++;
            continue;
        }
        while (at + length < size - LITERALS_AT_END && from[match + length] == from[at + length])
            length++;
        to = lz4_sequence(to, from + begin, at - begin, at - match, length);
        begin = at += length;
    }
    to = lz4_sequence(to, from + begin, size - begin, 0, 0);
    return (int)(to - (uint8_t *)target);
}
