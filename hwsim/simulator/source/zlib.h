// What Verilator's writer of FST calls of zlib, so that it need not be installed: blocks are stored.
//
// A stored stream is longer than what it holds, and the writer keeps the shorter of both.
#pragma once
#include <stdint.h>
#include <string.h>

typedef unsigned char Bytef;
typedef unsigned long uLong, uLongf;
#define Z_OK 0
#define ZLIB_BLOCK 65535ul

static inline uLong compressBound(uLong size) { return size + 5 * (size / ZLIB_BLOCK + 1) + 6; }

static inline int compress2(Bytef *target, uLongf *room, const Bytef *source, uLong size, int level)
{
    Bytef *to = target;
    uint32_t a = 1, b = 0;
    (void)level;
    *to++ = 0x78; /* deflate, window of 32 KiB */
    *to++ = 0x01; /* check bits */
    for (uLong at = 0, last = 0; !last;) {
        uLong count = size - at < ZLIB_BLOCK ? size - at : ZLIB_BLOCK;
        last = at + count == size;
        *to++ = (Bytef)last;
        *to++ = (Bytef)count;
        *to++ = (Bytef)(count >> 8);
        *to++ = (Bytef)~count;
        *to++ = (Bytef)(~count >> 8);
        memcpy(to, source + at, count);
        to += count;
        at += count;
    }
    for (uLong i = 0; i < size; i++) {
        a = (a + source[i]) % 65521;
        b = (b + a) % 65521;
    }
    for (int shift = 24; shift >= 0; shift -= 8) *to++ = (Bytef)((b << 16 | a) >> shift);
    *room = (uLongf)(to - target);
    return Z_OK;
}
