/* When the ranks of a channel are refreshed: one of each rank every tREFI, in turn.
 *
 * A rank whose refresh is due takes no other command. Its rows are closed as soon as they may be,
 * and the refresh follows as soon as it may.
 */

typedef struct { wide due, since; } Turn; /* since: its refresh is due; -1 if it is not */

typedef struct {
    Turn *turns;                /* by rank */
    wide due;                   /* clock in which the next one becomes due */
    wide pending;               /* ranks whose refresh is due */
} Refresh;

static void next_refresh(Refresh *refresh, wide ranks) {
    refresh->due = NEVER;
    for (wide rank = 0; rank < ranks; rank++)
        refresh->due = earlier(refresh->due, refresh->turns[rank].due);
}

static num begin_refresh(Refresh *refresh, const Settings *s) {
    refresh->turns = calloc(s->ranks, sizeof(Turn));
    if (!refresh->turns) return 0;
    for (wide rank = 0; rank < s->ranks; rank++) {
        refresh->turns[rank].due = s->tREFI ? (rank + 1) * s->tREFI / s->ranks : NEVER;
        refresh->turns[rank].since = -1;
    }
    next_refresh(refresh, s->ranks);
    return 1;
}

/* The rank that is due becomes pending; its number. */
static wide begin_turn(Refresh *refresh, const Settings *s) {
    wide rank = 0;
    while (refresh->turns[rank].due != refresh->due) rank += 1;
    refresh->turns[rank].since = refresh->due;
    refresh->turns[rank].due += s->tREFI;
    refresh->pending += 1;
    next_refresh(refresh, s->ranks);
    return rank;
}

typedef struct { wide clock, rank; } RankCommand;

/* The next command of those ranks that are pending, at `floor` or later. */
static RankCommand rank_command(const Refresh *refresh, const Rows *rows, wide floor) {
    RankCommand next = {NEVER, CLOSED};
    for (wide rank = 0; rank < rows->settings->ranks; rank++) {
        wide since = refresh->turns[rank].since;
        if (since < 0) continue;
        wide clock = later(later(refresh_clock(rows, rank), since), floor);
        if (clock < next.clock) next = (RankCommand){clock, rank};
    }
    return next;
}
