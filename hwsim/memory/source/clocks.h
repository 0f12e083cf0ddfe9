/* Cycles of an accelerator and clocks of its memory; both begin at 0.
 *
 * A request accepted in cycle c is there at the end of that cycle, and with the controller after
 * the latency; it counts from the first memory clock that begins then or later. Data whose last
 * clock is k are at hand at its end, for the first cycle that begins then or later.
 */

/* (a * b + c) / d, rounded down or up, with as many bits as that takes; NEVER at most. */
static wide scaled(wide a, wide b, wide c, wide d, num up) {
    wide product;
    if (a >= 0 && !__builtin_mul_overflow(a, b, &product)
        && !__builtin_add_overflow(product, c + (up ? d - 1 : 0), &product))
        return earlier(product / d, NEVER);
    __int128 sum = (__int128)a * b + c;
    __int128 whole = sum / d;
    if (up) whole += sum % d > 0;
    else whole -= sum % d < 0;
    return whole > NEVER ? NEVER : whole < -NEVER ? -NEVER : (wide)whole;
}

/* First clock in which the controller has what was accepted in a cycle. */
static wide arrival_of(const Settings *s, wide cycle) {
    return scaled(earlier(cycle, NEVER) + 1, s->cycle_parts, s->latency_parts, s->clock_parts, 1);
}

/* Clocks of the memory that are over when a cycle begins. */
static wide begun_at(const Settings *s, wide cycle) {
    return scaled(cycle, s->cycle_parts, 0, s->clock_parts, 0);
}

/* First cycle that begins when so many clocks are over, or later. */
static wide cycle_of(const Settings *s, wide clock) {
    return scaled(clock, s->clock_parts, 0, s->cycle_parts, 1);
}
