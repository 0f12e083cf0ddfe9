/* Banks behind one command bus and one data bus, and the queues in front of them. */

enum { ACT, PRE, PREA, RD, WR, REF };

typedef void (*Trace)(wide channel, wide clock, wide command, wide rank, wide bank, wide row);

typedef struct {
    const Settings *settings;
    Trace trace;                /* gets every command, if it is not NULL */
    num number;
    Side reads, writes, *side;  /* the one that is served */
    Rows rows;
    Refresh refresh;
    num *work;                  /* banks whose row is to be opened or closed */
    num works;
    wide row_at;                /* a clock before which none of them can */
    wide column_floor, row_floor; /* first clocks in which the bus takes such a command */
    wide until;                 /* all before that is decided */
    wide quiet;                 /* nothing goes before that, if nothing comes */
    wide turn_bank;             /* behind the bank that had the last turn */
    wide waiting_writes;        /* that have come and not gone */
    wide read, written;         /* columns so far */
    wide *clocks;               /* of the last writes: see posted.h */
    wide first_clock, clocks_room;
} Channel;

static num begin_channel(Channel *ch, const Settings *s, num number, Trace trace) {
    wide groups = s->ranks * s->bank_groups, banks = groups * s->banks_per_group;
    ch->settings = s;
    ch->number = number;
    ch->trace = trace;
    ch->side = &ch->reads;
    ch->work = calloc(banks, sizeof(num));
    num reads = begin_side(&ch->reads, s, 0, banks, groups);
    num writes = begin_side(&ch->writes, s, 1, banks, groups);
    num rows = begin_rows(&ch->rows, s);
    return begin_refresh(&ch->refresh, s) && ch->work && reads && writes && rows;
}

static void end_channel(Channel *ch) {
    end_side(&ch->reads);
    end_side(&ch->writes);
    end_rows(&ch->rows);
    free(ch->refresh.turns);
    free(ch->work);
    free(ch->clocks);
}

/* A column to read or write comes; arrivals must not decrease, nor be earlier than decisions. */
static void take_column(Channel *ch, Side *side, Column *column) {
    append(&side->incoming, LINE, column);
    ch->waiting_writes += side->writes;
    ch->quiet = 0;
}

static void note(const Channel *ch, wide clock, num command, wide rank, wide bank, wide row) {
    if (ch->trace) ch->trace(ch->number, clock, command, rank, bank, row);
}

static void want_row(Channel *ch, num number) {
    Bank *bank = &ch->rows.banks[number];
    if (!bank->works) ch->work[ch->works++] = number;
    bank->works = 1;
    ch->row_at = 0;
}

static void leave_row(Channel *ch, num number) {
    if (!ch->rows.banks[number].works) return;
    ch->rows.banks[number].works = 0;
    num i = 0;
    while (ch->work[i] != number) i += 1;
    ch->work[i] = ch->work[--ch->works];
}

static num is_pending(const Channel *ch, num rank) {
    return ch->refresh.pending && ch->refresh.turns[rank].since >= 0;
}

/* A column enters the queue of its bank. */
static void admit(Channel *ch, Side *side, Column *column) {
    const Bank *bank = &ch->rows.banks[column->bank];
    queue_up(side, column);
    if (side != ch->side || is_pending(ch, bank->rank)) return;
    if (column->row == bank->row) {
        add_hit(side, column);
        if (bank->given < ch->settings->hit_limit) leave_row(ch, column->bank);
    } else if (side->lanes[column->bank].queue.count == 1) {
        want_row(ch, column->bank);
    }
}

/* A column arrives in a clock: in the queue of its bank, or in the window. */
static void arrive(Channel *ch, Side *side, wide clock) {
    Column *column = side->incoming.first;
    take_out(&side->incoming, LINE, column);
    side->enter_at = clock + 1;
    if (side->lanes[column->bank].queue.count < ch->settings->bank_queue_columns)
        admit(ch, side, column);
    else
        wait_for_room(side, column);
}

/* The oldest column of a bank goes from the window into its queue; whether there is one. */
static num refill(Channel *ch, Side *side, num bank) {
    if (!side->lanes[bank].in_window) return 0;
    Column *column = side->window.first;
    while (column->bank != bank) column = column->next[LINE];
    take_out(&side->window, LINE, column);
    side->lanes[bank].in_window -= 1;
    admit(ch, side, column);
    return 1;
}

/* The row of a bank is closed, or that of its oldest column opened; clocks that the bus takes. */
static wide change_row(Channel *ch, Side *side, num number, wide clock) {
    const Settings *s = ch->settings;
    Bank *bank = &ch->rows.banks[number];
    Lane *lane = &side->lanes[number];
    wide row = bank->row;
    num closes = row != CLOSED;
    if (closes) {
        precharge(&ch->rows, number, clock);
        if (lane->hits) drop_hits(side, number, number + 1);
    } else {
        row = lane->queue.first->row;
        activate(&ch->rows, number, row, clock);
        ch->reads.lanes[number].ok = clock + s->tRCDRD;
        ch->writes.lanes[number].ok = clock + s->tRCDWR;
        leave_row(ch, number);
        for (Column *column = lane->queue.first; column; column = column->next[LINE])
            if (column->row == row) add_hit(side, column);
    }
    ch->row_at = 0;
    ch->turn_bank = number + 1;
    note(ch, clock, closes ? PRE : ACT, bank->rank, number, row);
    return closes ? s->precharge_clocks : s->activate_clocks;
}

/* A rank is left to its refresh. */
static void leave_rank(Channel *ch, Side *side, wide rank) {
    wide first = rank * ch->rows.banks_per_rank, end = first + ch->rows.banks_per_rank;
    drop_hits(side, first, end);
    for (wide bank = first; bank < end; bank++) leave_row(ch, (num)bank);
}

/* PREA if a row of the rank is open, else REF, and the rank is free again. */
static void give_rank_command(Channel *ch, const Side *side, wide rank, wide clock) {
    Rows *rows = &ch->rows;
    num closes = rows->ranks[rank].open_banks > 0;
    if (closes) {
        precharge_all(rows, rank, clock);
    } else {
        refresh(rows, rank, clock);
        ch->refresh.turns[rank].since = -1;
        ch->refresh.pending -= 1;
        wide first = rank * rows->banks_per_rank;
        for (wide bank = first; bank < first + rows->banks_per_rank; bank++)
            if (side->lanes[bank].queue.count) want_row(ch, (num)bank);
    }
    note(ch, clock, closes ? PREA : REF, rank, CLOSED, CLOSED);
}

static void serve(Channel *ch, Side *side) {
    const Settings *s = ch->settings;
    Side *old = ch->side;
    wide banks = s->ranks * ch->rows.banks_per_rank;
    drop_hits(old, 0, banks);
    wide apart = later(1, old->to_end + s->tRTRS - (side->to_end - s->burst));
    if (side->writes) follow(side, old, s, s->tRTW, s->tRTW, apart);
    else follow(side, old, s, old->to_end + s->tWTR_L, old->to_end + s->tWTR_S, apart);
    ch->side = side;
    while (ch->works) leave_row(ch, ch->work[ch->works - 1]);
    ch->row_at = 0;
    for (wide number = 0; number < banks; number++) {
        const Bank *bank = &ch->rows.banks[number];
        Lane *lane = &side->lanes[number];
        if (!lane->queue.count || is_pending(ch, bank->rank)) continue;
        for (Column *column = lane->queue.first; column; column = column->next[LINE])
            if (column->row == bank->row) add_hit(side, column);
        if (lane->queue.first->row != bank->row
            && (!lane->hits || bank->given >= s->hit_limit)) want_row(ch, (num)number);
    }
}

/* The other direction is served from now on, if its time has come; whether it has. */
static num turn(Channel *ch, wide now) {
    const Settings *s = ch->settings;
    Side *other = ch->side == &ch->reads ? &ch->writes : &ch->reads;
    wide clock;
    while ((clock = next_arrival(other)) <= now) arrive(ch, other, clock);
    num reads = ch->reads.queued > 0; /* a window is never filled before a queue */
    wide writes = ch->waiting_writes - ch->writes.incoming.count;
    num turns = other->writes ? writes >= s->write_high || (writes > 0 && !reads)
        : !writes || (reads && writes <= s->write_low);
    if (turns) serve(ch, other);
    return turns;
}
