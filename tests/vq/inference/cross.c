/* Multiply by layers that a test wrote, with kernels for another processor, and write what comes. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef int64_t num;

struct operand {
    const num *shape;
    const uint8_t *tiles;
    const int8_t *book;
    const float *scale;
    num scales;
    const uint16_t *groups;
    const uint8_t *zeros;
    const float *bias;
    float *y;
};

int signbook_linear(const struct operand *, num, const float *, num, num, num);
int signbook_rows(const num *, const uint8_t *, const int8_t *, const num *, num, int8_t *, num);
int signbook_tuned(const num *);
/* Only the portable unit has these. */
__attribute__((weak)) int signbook_can(void);
__attribute__((weak)) int signbook_pack(const num *, const uint8_t *, num, uint8_t *, num);

static FILE *in, *out;

/* The next array of the file, after the number of its bytes; NULL if that is -1. */
static void *part(num *bytes) {
    if (fread(bytes, 8, 1, in) != 1) exit(2);
    if (*bytes < 0) return NULL;
    void *data = malloc(*bytes + 1);
    if (!data || (*bytes && fread(data, *bytes, 1, in) != 1)) exit(3);
    return data;
}

int main(int argc, char **argv) {
    if (argc != 3 || !(in = fopen(argv[1], "rb")) || !(out = fopen(argv[2], "wb"))) return 1;
    num shape[9], call[4], size, scales, can = signbook_can ? signbook_can() : 0;
    fwrite(&can, 8, 1, out);
    while (fread(shape, sizeof(shape), 1, in) == 1 && fread(call, sizeof(call), 1, in) == 1) {
        num tokens = call[0], digits = call[1], threads = call[2], tile = call[3];
        num outputs = shape[0], inputs = shape[1], nbytes;
        uint8_t *stream = part(&size), *tiles = part(&nbytes);
        int8_t *book = part(&size);
        float *scale = part(&scales);
        uint16_t *groups = part(&size);
        uint8_t *zeros = part(&size);
        float *bias = part(&size), *x = part(&size);

        num is_tuned = signbook_tuned(shape);
        fwrite(&is_tuned, 8, 1, out);
        float *y = malloc(4 * tokens * outputs);
        struct operand layer = {shape, tiles, book, scale, scale ? scales / 4 : 0, groups, zeros,
                                bias, y};
        if (signbook_linear(&layer, 1, x, tokens, digits, threads)) return 4;
        fwrite(y, 4, tokens * outputs, out);
        num *chosen = malloc(8 * outputs);
        for (num i = 0; i < outputs; i++) chosen[i] = outputs - 1 - i;
        int8_t *rows = malloc(outputs * inputs);
        if (signbook_rows(shape, tiles, book, chosen, outputs, rows, threads)) return 5;
        fwrite(rows, inputs, outputs, out);
        if (signbook_pack) signbook_pack(shape, stream, tile, tiles, threads);
        fwrite(tiles, 1, nbytes, out);
        void *all[] = {stream, tiles, book, scale, groups, zeros, bias, x, y, chosen, rows};
        for (int i = 0; i < 11; i++) free(all[i]);
    }
    return fclose(out) ? 6 : 0;
}
