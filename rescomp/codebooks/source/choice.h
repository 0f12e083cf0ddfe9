/* Of one type: real, with integers of its size. */

typedef real NAME(reals) __attribute__((vector_size(64), may_alias));
typedef mask NAME(masks) __attribute__((vector_size(64), may_alias));
#undef WIDE
#define WIDE (num)(64 / sizeof(real))

/* A candidate of every output of a block: values, what the metric makes of the errors left, cost. */
typedef struct {
    mask word[LANES];
    real cost[LANES];
} NAME(Candidate);

/* Where scores [k][LANES] are least, which are no candidates any more then. */
INLINE void NAME(take)(num k, real (*scores)[LANES], mask *found, real *least) {
    for (num start = 0; start < LANES; start += 2 * WIDE) {
        NAME(reals) low = {0}, high = {0};
        NAME(masks) low_at = {0}, high_at = {0}, at = {0};
        low += INFINITY;
        high += INFINITY;
        for (num c = 0; c < k; c++) {
            const NAME(reals) *score = (const NAME(reals) *)(scores[c] + start);
            NAME(masks) low_less = score[0] < low, high_less = score[1] < high;
            low = (NAME(reals))PICK(low_less, (NAME(masks))score[0], (NAME(masks))low);
            high = (NAME(reals))PICK(high_less, (NAME(masks))score[1], (NAME(masks))high);
            low_at = PICK(low_less, at, low_at);
            high_at = PICK(high_less, at, high_at);
            at += 1;
        }
        memcpy(least + start, &low, sizeof low);
        memcpy(least + start + WIDE, &high, sizeof high);
        memcpy(found + start, &low_at, sizeof low_at);
        memcpy(found + start + WIDE, &high_at, sizeof high_at);
    }
    EACH(i) scores[found[i]][i] = INFINITY;
}

/* Cost of every codeword over the unit, up to what all share: pulls are -2 times those. */
INLINE void NAME(compare)(
    num d, num k, const real *book, const real *norms, const real *unit, real (*pulls)[LANES],
    real (*scores)[LANES]
) {
    for (num start = 0; start < LANES; start += 2 * WIDE) {
        NAME(reals) low, high;
        memcpy(&low, unit + start, sizeof low);
        memcpy(&high, unit + start + WIDE, sizeof high);
        for (num c = 0; c < k; c++) {
            NAME(reals) a = low * norms[c], b = high * norms[c];
            for (num j = 0; j < d; j++) {
                const NAME(reals) *pull = (const NAME(reals) *)(pulls[j] + start);
                a += book[c * d + j] * pull[0];
                b += book[c * d + j] * pull[1];
            }
            NAME(reals) *score = (NAME(reals) *)(scores[c] + start);
            score[0] = a;
            score[1] = b;
        }
    }
}

/* Turn sign j where asked for. */
INLINE void NAME(turn)(
    num d, const real *metric, num j, const mask *where, real (*values)[LANES],
    real (*pulls)[LANES]
) {
    real twice[LANES];
    EACH(i) {
        twice[i] = where[i] ? 2 * values[j][i] : 0;
        values[j][i] = where[i] ? -values[j][i] : values[j][i];
    }
    for (num l = 0; l < d; l++) EACH(i) pulls[l][i] += metric[j * d + l] * twice[i];
}

/* What turning sign j would change the cost by. */
INLINE void NAME(change)(
    num d, const real *metric, num j, real (*values)[LANES], real (*pulls)[LANES], real *out
) {
    EACH(i) out[i] = 4 * values[j][i] * (pulls[j][i] + values[j][i] * metric[j * d + j]);
}

INLINE void NAME(turn_each)(
    num d, const real *metric, real (*values)[LANES], real (*pulls)[LANES]
) {
    for (num j = 0; j < d; j++) {
        real change[LANES];
        mask where[LANES];
        NAME(change)(d, metric, j, values, pulls, change);
        EACH(i) where[i] = change[i] < 0;
        NAME(turn)(d, metric, j, where, values, pulls);
    }
}

/* Turn the cheapest sign where the number of negative ones is odd; zeros have a sign, too. */
INLINE void NAME(make_even)(
    num d, const real *metric, real (*values)[LANES], real (*pulls)[LANES]
) {
    real least[LANES];
    mask odd[LANES], cheapest[LANES];
    EACH(i) { least[i] = INFINITY; odd[i] = 0; cheapest[i] = 0; }
    for (num j = 0; j < d; j++) {
        real change[LANES];
        NAME(change)(d, metric, j, values, pulls, change);
        EACH(i) {
            mask less = change[i] < least[i];
            least[i] = less ? change[i] : least[i];
            cheapest[i] = less ? (mask)j : cheapest[i];
            odd[i] ^= COPYSIGN(1, values[j][i]) < 0;
        }
    }
    for (num j = 0; j < d; j++) {
        mask where[LANES];
        EACH(i) where[i] = odd[i] & (cheapest[i] == j);
        NAME(turn)(d, metric, j, where, values, pulls);
    }
}

/* Turn the two signs that together lower the cost most, where any do. */
INLINE void NAME(turn_pair)(
    num d, const real *metric, real (*values)[LANES], real (*pulls)[LANES], real (*changes)[LANES]
) {
    real least[LANES];
    mask first[LANES], second[LANES];
    EACH(i) { least[i] = 0; first[i] = second[i] = -1; }
    for (num j = 0; j < d; j++) NAME(change)(d, metric, j, values, pulls, changes[j]);
    for (num a = 0; a < d; a++)
        for (num b = a + 1; b < d; b++) {
            real both = 8 * metric[a * d + b];
            EACH(i) {
                real change = changes[a][i] + changes[b][i] + both * values[a][i] * values[b][i];
                mask less = change < least[i];
                least[i] = less ? change : least[i];
                first[i] = less ? (mask)a : first[i];
                second[i] = less ? (mask)b : second[i];
            }
        }
    for (num j = 0; j < d; j++) {
        mask where[LANES];
        EACH(i) where[i] = (first[i] == j) | (second[i] == j);
        NAME(turn)(d, metric, j, where, values, pulls);
    }
}

INLINE void NAME(cost_of)(
    num d, real (*weight)[LANES], real (*values)[LANES], real (*pulls)[LANES], real *cost
) {
    EACH(i) cost[i] = 0;
    for (num j = 0; j < d; j++) EACH(i) cost[i] += (weight[j][i] - values[j][i]) * pulls[j][i];
}

/* `wide` is room for scores [k], then weights, pulls and changes [d], then values and pulls [d] of
   the candidate in hand, the best one, and of all. */
INLINE void NAME(choose)(
    num d, num k, num outputs, num is_signed, num parity, num candidates, const real *book,
    const real *norms, const real *metric, const real *weights, num stride, const real *units,
    num unit_step, num *indices, uint8_t *negative, real *values, real (*wide)[LANES],
    NAME(Candidate) *all
) {
    real (*scores)[LANES] = wide, (*weight)[LANES] = scores + k, (*pulls)[LANES] = weight + d;
    real (*changes)[LANES] = pulls + d, (*own)[LANES] = changes + d, (*best)[LANES] = own + 2 * d;
    real (*kept)[LANES] = best + d;
    num count = parity ? candidates : (candidates + 3) / 4;
    for (num start = 0; start < outputs; start += LANES) {
        num filled = outputs - start < LANES ? outputs - start : LANES;
        real unit[LANES], least[LANES];
        mask word[LANES];
        EACH(i) unit[i] = i < filled ? units[(start + i) * unit_step] : 1;
        for (num j = 0; j < d; j++)
            EACH(i) weight[j][i] = i < filled ? weights[j * stride + start + i] : 0;
        if (!is_signed) {
            for (num j = 0; j < d; j++) {
                EACH(i) pulls[j][i] = 0;
                for (num l = 0; l < d; l++)
                    EACH(i) pulls[j][i] -= 2 * metric[j * d + l] * weight[l][i];
            }
            NAME(compare)(d, k, book, norms, unit, pulls, scores);
            NAME(take)(k, scores, word, least);
            for (num j = 0; j < d; j++) EACH(i) best[j][i] = book[word[i] * d + j] * unit[i];
        } else {
            for (num j = 0; j < d; j++)
                EACH(i) pulls[j][i] = -2 * metric[j * d + j] * COPYSIGN(weight[j][i], 1);
            NAME(compare)(d, k, book, norms, unit, pulls, scores);
            for (num c = 0; c < candidates; c++) {
                real (*v)[LANES] = kept + 2 * d * c, (*p)[LANES] = v + d;
                NAME(take)(k, scores, all[c].word, least);
                for (num j = 0; j < d; j++)
                    EACH(i) v[j][i] = COPYSIGN(book[all[c].word[i] * d + j] * unit[i], weight[j][i]);
                for (num j = 0; j < d; j++) {
                    EACH(i) p[j][i] = 0;
                    for (num l = 0; l < d; l++)
                        EACH(i) p[j][i] += metric[j * d + l] * (weight[l][i] - v[l][i]);
                }
                if (parity) NAME(make_even)(d, metric, v, p);
                else NAME(turn_each)(d, metric, v, p);
                NAME(cost_of)(d, weight, v, p, all[c].cost);
            }
            EACH(i) { least[i] = INFINITY; word[i] = 0; }
            for (num turn = 0; turn < count; turn++) {
                /* Pairs, which take longest, are turned of the best where single signs are
                   settled. */
                real cost[LANES];
                mask at[LANES], own_word[LANES];
                EACH(i) { cost[i] = INFINITY; at[i] = 0; }
                for (num c = 0; c < candidates; c++)
                    EACH(i) {
                        mask less = all[c].cost[i] < cost[i];
                        cost[i] = less ? all[c].cost[i] : cost[i];
                        at[i] = less ? (mask)c : at[i];
                    }
                EACH(i) { own_word[i] = all[at[i]].word[i]; all[at[i]].cost[i] = INFINITY; }
                for (num j = 0; j < 2 * d; j++) EACH(i) own[j][i] = kept[2 * d * at[i] + j][i];
                if (d > 1) NAME(turn_pair)(d, metric, own, own + d, changes);
                if (d > 1 && !parity) NAME(turn_each)(d, metric, own, own + d);
                NAME(cost_of)(d, weight, own, own + d, cost);
                mask less[LANES];
                EACH(i) {
                    less[i] = cost[i] < least[i];
                    least[i] = less[i] ? cost[i] : least[i];
                    word[i] = less[i] ? own_word[i] : word[i];
                }
                for (num j = 0; j < d; j++) EACH(i) best[j][i] = less[i] ? own[j][i] : best[j][i];
            }
        }
        for (num i = 0; i < filled; i++) indices[start + i] = word[i];
        for (num j = 0; j < d; j++) {
            memcpy(values + j * outputs + start, best[j], filled * sizeof(real));
            if (is_signed)
                for (num i = 0; i < filled; i++)
                    negative[j * outputs + start + i] = COPYSIGN(1, best[j][i]) < 0;
        }
    }
}

/* See Codewords.choose; 0, or -1 where there is no memory. */
int NAME(signbook_choose)(
    num d, num k, num outputs, num is_signed, num parity, num candidates, const real *book,
    const real *norms, const real *metric, const real *weights, num stride, const real *units,
    num unit_step, num *indices, uint8_t *negative, real *values
) {
    num rows = k + 6 * d + 2 * d * candidates;
    size_t row = LANES * sizeof(real);
    real (*wide)[LANES] = aligned_alloc(64, rows * row);
    NAME(Candidate) *all = malloc(candidates * sizeof(NAME(Candidate)));
    int failed = wide == NULL || all == NULL ? -1 : 0;
#define CHOOSE(d) \
    NAME(choose)( \
        d, k, outputs, is_signed, parity, candidates, book, norms, metric, weights, stride, \
        units, unit_step, indices, negative, values, wide, all \
    )
    /* What is known when compiled stays in registers. */
    if (!failed) {
        if (sizeof(real) == 4 && d == 8) CHOOSE(8);
        else if (sizeof(real) == 4 && d == 4) CHOOSE(4);
        else CHOOSE(d);
    }
#undef CHOOSE
    free(wide);
    free(all);
    return failed;
}
