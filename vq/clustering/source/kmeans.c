/* The loops of k-means over points with a weight per coordinate: vq/clustering/kmeans.py. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef int64_t num;

/* Points of a block: one vector. */
#define LANES 16
typedef float reals __attribute__((vector_size(64)));
typedef int32_t masks __attribute__((vector_size(64)));
/* Of two vectors of integers, the first where asked for. */
#define PICK(where, yes, no) (((where) & (yes)) | (~(where) & (no)))
#define INLINE static inline __attribute__((always_inline))

/* `rows` is room for weights, and for -2 times weighted points, [d] each. */
INLINE void nearest(
    num d, num n, num k, const float *points, const float *weights, const float *book,
    const float *squares, num *indices, float *distances, reals *rows
) {
    for (num start = 0; start < n; start += LANES) {
        num filled = n - start < LANES ? n - start : LANES;
        reals norms = {0}, least = {0};
        masks found = {0}, at = {0};
        least += INFINITY;
        for (num j = 0; j < d; j++) {
            reals point = {0}, weight = {0};
            for (num i = 0; i < filled; i++) {
                point[i] = points[(start + i) * d + j];
                weight[i] = weights[(start + i) * d + j];
            }
            rows[j] = weight;
            rows[d + j] = -2 * weight * point;
            norms += weight * point * point;
        }
        for (num c = 0; c < k; c++) {
            reals score = {0};
            for (num j = 0; j < d; j++)
                score += rows[j] * squares[c * d + j] + rows[d + j] * book[c * d + j];
            masks less = score < least;
            least = (reals)PICK(less, (masks)score, (masks)least);
            found = PICK(less, at, found);
            at += 1;
        }
        for (num i = 0; i < filled; i++) {
            float distance = norms[i] + least[i];
            indices[start + i] = found[i];
            distances[start + i] = distance > 0 ? distance : 0;
        }
    }
}

/* See assign; 0, or -1 where there is no memory. */
int signbook_nearest(
    num n, num d, num k, const float *points, const float *weights, const float *book,
    const float *squares, num *indices, float *distances
) {
    reals *rows = aligned_alloc(sizeof(reals), 2 * d * sizeof(reals));
    if (rows == NULL) return -1;
    /* What is known when compiled stays in registers. */
    if (d == 8) nearest(8, n, k, points, weights, book, squares, indices, distances, rows);
    else if (d == 4) nearest(4, n, k, points, weights, book, squares, indices, distances, rows);
    else nearest(d, n, k, points, weights, book, squares, indices, distances, rows);
    free(rows);
    return 0;
}

/* Distances to the nearest codeword so far, once there is another. */
int signbook_approach(
    num n, num d, const float *points, const float *weights, const float *codeword,
    float *distances
) {
    for (num i = 0; i < n; i++) {
        float distance = 0;
        for (num j = 0; j < d; j++) {
            float difference = points[i * d + j] - codeword[j];
            distance += weights[i * d + j] * difference * difference;
        }
        distances[i] = distance < distances[i] ? distance : distances[i];
    }
    return 0;
}

/* Sums [k, d] of weighted points and of weights, by codeword. */
int signbook_sums(
    num n, num d, const float *points, const float *weights, const num *indices, double *sums,
    double *masses
) {
    for (num i = 0; i < n; i++)
        for (num j = 0; j < d; j++) {
            float weighted = points[i * d + j] * weights[i * d + j];
            sums[indices[i] * d + j] += weighted;
            masses[indices[i] * d + j] += weights[i * d + j];
        }
    return 0;
}
