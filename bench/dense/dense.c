/* What bench/kernels.py compares with: reading, and dense weights of 4 or 2 bytes, each in one
   sequential stream of blocks of 16 outputs. A row-major fp32 or bf16 would be slower, and flatter
   what it is compared with. */

#include <stdint.h>
#include <string.h>

typedef int64_t num;
typedef float reals __attribute__((vector_size(64)));
typedef uint32_t words __attribute__((vector_size(64)));
typedef uint64_t longs __attribute__((vector_size(64)));

/* Sum of all words of n bytes, a multiple of 512. */
uint64_t signbook_read(const uint8_t *p, num n, num threads) {
    uint64_t total = 0;
#pragma omp parallel for num_threads(threads) reduction(+ : total) schedule(static)
    for (num part = 0; part < 64; part++) {
        num from = n / 512 * part / 64 * 512, end = n / 512 * (part + 1) / 64 * 512;
        longs sums[8] = {{0}};
        for (num at = from; at < end; at += 512)
            for (num i = 0; i < 8; i++) {
                longs value;
                memcpy(&value, p + at + 64 * i, 64);
                sums[i] += value;
            }
        for (num i = 0; i < 8; i++)
            for (num j = 0; j < 8; j++) total += sums[i][j];
    }
    return total;
}

static reals at(const float *p) {
    reals value;
    memcpy(&value, p, 64);
    return value;
}

/* y [M, O] of x [M, I] and w [O / 16, I, 16]. */
void signbook_fp32(const float *x, const float *w, float *y, num M, num O, num I, num threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (num block = 0; block < O / 16; block++)
        for (num m = 0; m < M; m++) {
            const float *p = w + block * I * 16, *own = x + m * I;
            reals sums[4] = {{0}};
            for (num i = 0; i < I; i += 4)
                for (num j = 0; j < 4; j++) sums[j] += at(p + (i + j) * 16) * own[i + j];
            sums[0] += sums[1] + sums[2] + sums[3];
            memcpy(y + m * O + block * 16, sums, 64);
        }
}

/* The same of w [O / 16, I / 2, 16, 2] bf16: the second of two inputs in the upper half. */
void signbook_bf16(const float *x, const uint32_t *w, float *y, num M, num O, num I, num threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (num block = 0; block < O / 16; block++)
        for (num m = 0; m < M; m++) {
            const uint32_t *p = w + block * I * 8;
            const float *own = x + m * I;
            reals sums[4] = {{0}};
            for (num i = 0; i < I; i += 4)
                for (num j = 0; j < 2; j++) {
                    words pair;
                    memcpy(&pair, p + (i / 2 + j) * 16, 64);
                    sums[2 * j] += (reals)(pair << 16) * own[i + 2 * j];
                    sums[2 * j + 1] += (reals)(pair & 0xffff0000) * own[i + 2 * j + 1];
                }
            sums[0] += sums[1] + sums[2] + sums[3];
            memcpy(y + m * O + block * 16, sums, 64);
        }
}
