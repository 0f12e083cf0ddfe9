/* Deciding: the next command is the one that can go first, and the state moves on to it. */

/* Columns that have arrived. */
static void take_arrivals(Channel *ch, wide now) {
    Side *side = ch->side;
    while (next_arrival(side) <= now) arrive(ch, side, next_arrival(side));
}

/* The command that goes next if nothing comes before it. `lowest` is set to a clock in which a
   column goes as soon as any could, -1 if nothing is known. */
static Choice choose(Channel *ch, wide *lowest) {
    const Side *side = ch->side;
    *lowest = -1;
    if (ch->settings->rotating) return next_turn(ch);
    Choice choice = {NEVER, NULL, CLOSED};
    if (side->hits.first) {
        *lowest = side->rank_ok[0];
        for (wide rank = 1; rank < ch->settings->ranks; rank++)
            *lowest = earlier(*lowest, side->rank_ok[rank]);
        *lowest = later(*lowest, ch->column_floor);
        choice = first_column(side, &ch->rows, *lowest);
    }
    if (ch->works && ch->row_floor < choice.clock && ch->row_at < choice.clock) {
        Choice row = first_row(ch, &ch->row_at);
        if (row.clock < choice.clock) {
            *lowest = -1;
            return row;
        }
    }
    return choice;
}

/* Take columns that arrive before a command, but leave it as it is: one more that waits does, and
   so does a younger hit if that is a hit which goes as soon as any could. The result is when the
   next one comes that may not. */
static wide pass_arrivals(Channel *ch, wide first, wide lowest, wide horizon) {
    Side *side = ch->side;
    wide arrival;
    while ((arrival = next_arrival(side)) < NEVER) {
        if (arrival > first || arrival >= horizon || ch->refresh.pending || ch->waiting_writes)
            return arrival;
        const Column *column = side->incoming.first;
        const Bank *bank = &ch->rows.banks[column->bank];
        num full = side->lanes[column->bank].queue.count >= ch->settings->bank_queue_columns;
        if (!full && (first != lowest || column->row != bank->row || bank->works)) return arrival;
        arrive(ch, side, arrival);
    }
    return NEVER;
}

/* A column goes in a clock. */
static void give_column(Channel *ch, Column *column, wide clock) {
    const Settings *s = ch->settings;
    Side *side = ch->side;
    num number = column->bank;
    Bank *bank = &ch->rows.banks[number];
    Lane *lane = &side->lanes[number];
    take_out(&side->hits, HITS, column);
    take_out(&lane->queue, LINE, column);
    side->queued -= 1;
    lane->hits -= 1;
    bank->given += 1;
    column->due = clock + side->to_end;
    side->last[bank->group] = clock;
    side->group_ok[bank->group] = clock + side->same_group;
    for (wide rank = 0; rank < s->ranks; rank++) {
        if (rank == bank->rank) side->rank_ok[rank] = clock + side->same_rank;
        else side->rank_ok[rank] = later(side->rank_ok[rank], clock + side->other_rank);
    }
    bank->precharge_ok = later(bank->precharge_ok, clock + side->to_precharge);
    ch->column_floor = clock + s->column_clocks;
    ch->row_floor = s->split_command_bus ? later(ch->row_floor, clock) : ch->column_floor;
    if (lane->queue.first && lane->queue.first->row != bank->row
        && (!lane->hits || bank->given >= s->hit_limit)) want_row(ch, number);
    num full = side->window.count == side->window_columns;
    if (refill(ch, side, number) && full && side->enter_at <= clock) side->enter_at = clock + 1;
    if (s->rotating) ch->turn_bank = number + 1;
    note(ch, clock, side->writes ? WR : RD, bank->rank, number, column->row);
}

/* The bus is taken up by a command that is no column. */
static void take_bus(Channel *ch, wide clock, wide clocks) {
    ch->row_floor = clock + clocks;
    wide columns = ch->settings->split_command_bus ? clock : ch->row_floor;
    ch->column_floor = later(ch->column_floor, columns);
}

/* Clock before which nothing comes if nothing does before the beat whose data end in a clock. */
static wide settled(Dram *dram, wide end) {
    wide cycle = cycle_of(&dram->settings, later(dram->latest, end));
    dram->known = later(dram->known, arrival_of(&dram->settings, cycle));
    return dram->known;
}

/* Decide all commands before clock `until`, or until so many writes have gone; what is taken later
   must arrive at `until` or later. If a column is wanted, decide up to that, and on before the
   clock in which something can come because of it. */
static void run(Dram *dram, Channel *ch, wide until, const Column *wanted, wide writes) {
    Refresh *refreshes = &ch->refresh;
    if (until <= ch->until) return;
    while (until > ch->quiet) {
        wide now = earlier(ch->column_floor, ch->row_floor);
        take_arrivals(ch, now);
        if ((ch->waiting_writes || ch->side->writes) && turn(ch, now)) continue;
        Side *side = ch->side;
        wide lowest, horizon = earlier(until, refreshes->due);
        Choice choice = choose(ch, &lowest);
        wide first = choice.clock;
        wide arrival = pass_arrivals(ch, first, lowest, horizon);
        if (ch->waiting_writes)
            arrival = earlier(arrival, next_arrival(side->writes ? &ch->reads : &ch->writes));
        if (first >= horizon || first >= arrival || refreshes->pending) {
            RankCommand next = {NEVER, CLOSED};
            if (refreshes->pending) next = rank_command(refreshes, &ch->rows, ch->row_floor);
            wide before = earlier(earlier(arrival, refreshes->due), until);
            if (refreshes->pending && next.clock <= first && next.clock < before) {
                give_rank_command(ch, side, next.rank, next.clock);
                take_bus(ch, next.clock, ch->settings->precharge_clocks);
                continue;
            }
            if (refreshes->due <= earlier(first, arrival) && refreshes->due < until) {
                leave_rank(ch, side, begin_turn(refreshes, ch->settings));
                continue;
            }
            if (arrival <= first && arrival < until) {
                ch->column_floor = later(ch->column_floor, arrival);
                ch->row_floor = later(ch->row_floor, arrival);
                continue;
            }
            if (first >= until) {
                ch->quiet = earlier(earlier(first, next.clock), earlier(arrival, refreshes->due));
                break;
            }
        }
        ch->quiet = 0;
        if (!choice.column) {
            take_bus(ch, first, change_row(ch, side, choice.bank, first));
            continue;
        }
        give_column(ch, choice.column, first);
        if (!side->writes) {
            ch->read += 1;
            if (choice.column == wanted) until = settled(dram, wanted->due);
            continue;
        }
        count_write(ch, first);
        forget_write(&dram->posted, choice.column);
        free_column(&dram->pool, choice.column);
        if (ch->written >= writes) break;
    }
    if (writes == NEVER) ch->until = later(ch->until, until);
}
