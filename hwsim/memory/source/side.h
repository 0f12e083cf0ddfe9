/* Columns of one direction, reads or writes: where they wait, and when the next may go. */

typedef struct {
    List queue;                 /* in order */
    wide hits;                  /* those of them whose row is open; only of the side that is served */
    wide in_window;             /* columns that wait for room in the queue */
    wide ok;                    /* first clock in which the bank can take the next column */
} Lane;

typedef struct {
    num writes;
    List incoming;              /* not arrived, or without room in the window */
    List window;                /* waiting for room in the queue of their bank, in order */
    List hits;                  /* those in queues whose row is open; only of the side served */
    wide window_columns, queued;
    wide enter_at;              /* first clock in which the next column may arrive: one per clock
                                   does, and while the window is full, none */
    Lane *lanes;                /* by bank */
    wide *group_ok, *rank_ok;   /* first clock in which a group or rank can take the next column */
    wide *last;                 /* clock of the last column by group, 0 if there was none */
    /* Clocks between columns of this direction; from one to the precharge of its bank, and to the
       end of its data. */
    wide same_group, same_rank, other_rank, to_precharge, to_end;
} Side;

/* Whether there is memory for it. */
static num begin_side(Side *side, const Settings *s, num writes, wide banks, wide groups) {
    side->writes = writes;
    side->window_columns = writes ? NEVER : s->window_columns;
    side->lanes = calloc(banks, sizeof(Lane));
    side->group_ok = calloc(groups, sizeof(wide));
    side->rank_ok = calloc(s->ranks, sizeof(wide));
    side->last = calloc(groups, sizeof(wide));
    side->same_group = later(s->tCCD_L, s->burst);
    side->same_rank = later(s->tCCD_S, s->burst);
    side->other_rank = s->burst + s->tRTRS;
    wide read_end = s->CL + s->tDQSCK + s->burst, write_end = s->CWL + s->tDQSS + s->burst;
    side->to_precharge = writes ? write_end + s->tWR : s->tRTP;
    side->to_end = writes ? write_end : read_end;
    return side->lanes && side->group_ok && side->rank_ok && side->last;
}

static void end_side(Side *side) {
    free(side->lanes);
    free(side->group_ok);
    free(side->rank_ok);
    free(side->last);
}

/* Clock in which the next column arrives, if the window has room by itself. */
static wide next_arrival(const Side *side) {
    if (!side->incoming.first || side->window.count >= side->window_columns) return NEVER;
    return later(side->incoming.first->arrival, side->enter_at);
}

/* Keep the distances to the last columns of the other direction, in clocks: in the same group, in
   the same rank, and in another rank. */
static void follow(Side *side, const Side *other, const Settings *s, wide same_group,
                   wide same_rank, wide apart) {
    for (wide group = 0; group < s->ranks * s->bank_groups; group++) {
        wide clock = other->last[group];
        if (!clock) continue;
        side->group_ok[group] = later(side->group_ok[group], clock + same_group);
        for (wide rank = 0; rank < s->ranks; rank++) {
            wide distance = rank == group / s->bank_groups ? same_rank : apart;
            side->rank_ok[rank] = later(side->rank_ok[rank], clock + distance);
        }
    }
}

static void add_hit(Side *side, Column *column) {
    insert(&side->hits, HITS, column);
    side->lanes[column->bank].hits += 1;
}

static void queue_up(Side *side, Column *column) {
    append(&side->lanes[column->bank].queue, LINE, column);
    side->queued += 1;
}

static void wait_for_room(Side *side, Column *column) {
    append(&side->window, LINE, column);
    side->lanes[column->bank].in_window += 1;
}

/* No column of some banks is a hit any more. */
static void drop_hits(Side *side, wide first_bank, wide end_bank) {
    Column *next;
    for (Column *column = side->hits.first; column; column = next) {
        next = column->next[HITS];
        if (column->bank >= first_bank && column->bank < end_bank)
            take_out(&side->hits, HITS, column);
    }
    for (wide bank = first_bank; bank < end_bank; bank++) side->lanes[bank].hits = 0;
}
