/* Which of the commands that a channel could give goes first. */

typedef struct {
    wide clock;                 /* NEVER if there is none */
    Column *column;             /* to be read or written, or NULL: */
    num bank;                   /* its row is to be opened or closed */
} Choice;

/* First clock in which a bank can take a column, but for the bus. */
static wide column_clock(const Side *side, const Rows *rows, wide number) {
    const Bank *bank = &rows->banks[number];
    return later(later(side->group_ok[bank->group], side->lanes[number].ok),
                 side->rank_ok[bank->rank]);
}

/* Of the columns of open rows, the oldest of those that can go first; none can before `lowest`. */
static Choice first_column(const Side *side, const Rows *rows, wide lowest) {
    Choice choice = {NEVER, NULL, CLOSED};
    num tried = CLOSED;
    for (Column *column = side->hits.first; column; column = column->next[HITS]) {
        if (column->bank == tried) continue;
        tried = column->bank;
        wide clock = later(column_clock(side, rows, column->bank), lowest);
        if (clock < choice.clock) choice = (Choice){clock, column, column->bank};
        if (clock == lowest || side->hits.count == side->lanes[tried].hits) break;
    }
    return choice;
}

/* The next row to be opened or closed, that for the oldest column if several can be. `soonest` is
   set to a clock before which none can change, but for the bus, which takes it from `floor` on. */
static Choice first_row(const Channel *ch, wide *soonest) {
    Choice choice = {NEVER, NULL, CLOSED};
    wide oldest = NEVER;
    *soonest = NEVER;
    for (num i = 0; i < ch->works; i++) {
        num bank = ch->work[i];
        wide clock = change_clock(&ch->rows, bank);
        wide order = ch->side->lanes[bank].queue.first->order;
        *soonest = earlier(*soonest, clock);
        clock = later(clock, ch->row_floor);
        if (clock > choice.clock || (clock == choice.clock && order > oldest)) continue;
        choice = (Choice){clock, NULL, bank};
        oldest = order;
    }
    return choice;
}

/* The next command if banks take turns. */
static Choice next_turn(const Channel *ch) {
    const Side *side = ch->side;
    const Rows *rows = &ch->rows;
    Choice choice = {NEVER, NULL, CLOSED};
    wide banks = ch->settings->ranks * rows->banks_per_rank;
    for (wide turn = 0; turn < banks; turn++) {
        num number = (num)((ch->turn_bank + turn) % banks);
        const Bank *bank = &rows->banks[number];
        if (side->lanes[number].hits) {
            wide clock = later(column_clock(side, rows, number), ch->column_floor);
            Column *column = side->lanes[number].queue.first;
            while (column->row != bank->row) column = column->next[LINE];
            if (clock < choice.clock) choice = (Choice){clock, column, number};
        }
        if (bank->works) {
            wide clock = later(change_clock(rows, number), ch->row_floor);
            num same = choice.bank == number && clock == choice.clock;
            if (clock < choice.clock || same) choice = (Choice){clock, NULL, number};
        }
    }
    return choice;
}
