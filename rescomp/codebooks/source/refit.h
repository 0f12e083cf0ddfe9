/* What codes stand for, and its transpose, of one type: rescomp/codebooks/refit.py. */

/* Weights [groups * d, outputs] of a codebook [k, d]; `negative` may be NULL. */
void NAME(signbook_decode)(
    num d, num groups, num outputs, const real *book, const num *indices, const uint8_t *negative,
    const real *unit, real *values
) {
    for (num group = 0; group < groups; group++)
        for (num start = 0; start < outputs; start += LANES) {
            num filled = outputs - start < LANES ? outputs - start : LANES;
            const num *word = indices + group * outputs + start;
            for (num j = 0; j < d; j++) {
                num at = (group * d + j) * outputs + start;
                for (num i = 0; i < filled; i++) {
                    real value = book[word[i] * d + j] * unit[start + i];
                    values[at + i] = negative != NULL && negative[at + i] ? -value : value;
                }
            }
        }
}

/* Sums [k, d] of weights over where every number of the codebook stands, with its sign and unit;
   added to what is there. */
void NAME(signbook_gather)(
    num d, num groups, num outputs, const real *values, const num *indices,
    const uint8_t *negative, const real *unit, real *sums
) {
    for (num group = 0; group < groups; group++)
        for (num start = 0; start < outputs; start += LANES) {
            num filled = outputs - start < LANES ? outputs - start : LANES;
            const num *word = indices + group * outputs + start;
            for (num j = 0; j < d; j++) {
                num at = (group * d + j) * outputs + start;
                real own[LANES];
                for (num i = 0; i < filled; i++) {
                    real value = values[at + i] * unit[start + i];
                    own[i] = negative != NULL && negative[at + i] ? -value : value;
                }
                for (num i = 0; i < filled; i++) sums[word[i] * d + j] += own[i];
            }
        }
}
