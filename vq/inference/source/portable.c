/* Any processor: what all others are compared with, and what they fall back on. Here, too, are the
   way from a container's stream into tiles, and what this processor can do. */

#include "layer.h"

#define OFFSET 0
#define DIRECT 0
#define TABLES 0

static void prepare(const struct layer *l, uint8_t *tables) { (void)l, (void)tables; }

static int tuned(const struct layer *l) { return (void)l, 0; }

static int multiply(const struct layer *l, const uint8_t *tables, const uint8_t *p, num n,
                    const int8_t *x, num stride, num rows, int32_t *sums) {
    (void)l, (void)tables, (void)p, (void)n, (void)x, (void)stride, (void)rows, (void)sums;
    return 0;
}

static void unpack(const struct layer *l, const uint8_t *tables, const uint8_t *p, num n,
                   uint8_t *out) {
    (void)tables;
    unpack_any(l, p, n, out);
}

static void product(const uint8_t *t, num step, num n, const int8_t *x, num stride, num rows,
                    int32_t *sums, num wide) {
    for (num r = 0; r < rows; r++) {
        int32_t lanes[LANES] = {0};
        for (num v = 0; v < n; v++) {
            int16_t own[LANES];
            for (num i = 0; i < LANES; i++) own[i] = x[r * stride + 4 * v + i % 4];
            for (num i = 0; i < LANES; i++)
                lanes[i] += (int16_t)(t[v * step + i] - 128) * own[i];
        }
        for (num i = 0; i < ROWS; i++)
            sums[r * wide + i] += lanes[4 * i] + lanes[4 * i + 1] + lanes[4 * i + 2]
                + lanes[4 * i + 3];
    }
}

#include "driver.h"
#include "pack.h"

#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

/* Names of vq/inference/kernels.py, a bit each. */
int signbook_can(void) {
    int found = 1;
#if defined(__x86_64__) || defined(__i386__)
    __builtin_cpu_init();
    int avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
        && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    int vnni = avx512 && __builtin_cpu_supports("avx512vnni");
    if (__builtin_cpu_supports("avx2")) found |= 2;
    if (avx512) found |= 4;
    if (vnni) found |= 8;
    if (vnni && __builtin_cpu_supports("avx512vbmi")) found |= 16;
#elif defined(__aarch64__)
    found |= 32;
#ifdef __linux__
    if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) found |= 64;
#elif defined(__ARM_FEATURE_DOTPROD) /* all that this system runs on have them */
    found |= 64;
#endif
#endif
    return found;
}
