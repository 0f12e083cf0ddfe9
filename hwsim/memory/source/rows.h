/* Rows of a channel's banks: which are open, and when the next can be opened, closed, refreshed. */

enum { CLOSED = -1 };           /* stands for the row of a bank in which none is open, or no bank */

typedef struct {
    num rank, group;            /* groups are counted over all ranks */
    num works;                  /* its row is to be opened or closed */
    wide row;                   /* that is open */
    wide activate_ok, precharge_ok; /* first clock in which one may be opened, and it closed */
    wide given;                 /* columns that the row has given since it was opened */
} Bank;

typedef struct {
    wide activate_ok, precharge_ok;
    wide last_four[4];          /* activates */
    wide activates, open_banks, active_since;
} Rank;

typedef struct {
    const Settings *settings;
    Bank *banks;
    Rank *ranks;
    wide *group_ok;             /* first clock in which a group takes the next activate */
    wide banks_per_rank;
    wide active_clocks, activates, refreshes;
} Rows;

static num begin_rows(Rows *rows, const Settings *s) {
    rows->settings = s;
    rows->banks_per_rank = s->bank_groups * s->banks_per_group;
    wide banks = s->ranks * rows->banks_per_rank;
    rows->banks = calloc(banks, sizeof(Bank));
    rows->ranks = calloc(s->ranks, sizeof(Rank));
    rows->group_ok = calloc(s->ranks * s->bank_groups, sizeof(wide));
    if (!rows->banks || !rows->ranks || !rows->group_ok) return 0;
    for (wide bank = 0; bank < banks; bank++) {
        rows->banks[bank].rank = (num)(bank / rows->banks_per_rank);
        rows->banks[bank].group = (num)(bank / s->banks_per_group);
        rows->banks[bank].row = CLOSED;
    }
    return 1;
}

static void end_rows(Rows *rows) {
    free(rows->banks);
    free(rows->ranks);
    free(rows->group_ok);
}

/* First clock in which the bank's row may be closed, or one opened if none is open. */
static wide change_clock(const Rows *rows, wide number) {
    const Bank *bank = &rows->banks[number];
    const Rank *rank = &rows->ranks[bank->rank];
    if (bank->row != CLOSED) return later(bank->precharge_ok, rank->precharge_ok);
    return later(later(bank->activate_ok, rank->activate_ok), rows->group_ok[bank->group]);
}

static void activate(Rows *rows, wide number, wide row, wide clock) {
    const Settings *s = rows->settings;
    Bank *bank = &rows->banks[number];
    Rank *rank = &rows->ranks[bank->rank];
    bank->row = row;
    bank->given = 0;
    bank->activate_ok = clock + s->tRC;
    bank->precharge_ok = clock + s->tRAS;
    rows->group_ok[bank->group] = clock + s->tRRD_L;
    rank->activate_ok = clock + s->tRRD_S;
    rank->last_four[rank->activates & 3] = clock;
    rank->activates += 1;
    if (rank->activates >= 4)
        rank->activate_ok = later(rank->activate_ok, rank->last_four[rank->activates & 3] + s->tFAW);
    if (rank->open_banks == 0) rank->active_since = clock;
    rank->open_banks += 1;
    rows->activates += 1;
}

static void precharge(Rows *rows, wide number, wide clock) {
    Bank *bank = &rows->banks[number];
    Rank *rank = &rows->ranks[bank->rank];
    bank->row = CLOSED;
    bank->activate_ok = later(bank->activate_ok, clock + rows->settings->tRP);
    rank->precharge_ok = clock + rows->settings->tPPD;
    rank->open_banks -= 1;
    if (rank->open_banks == 0) rows->active_clocks += clock - rank->active_since;
}

/* First clock in which the rows of a rank may be closed, or, if they are, refreshed. */
static wide refresh_clock(const Rows *rows, wide number) {
    const Rank *rank = &rows->ranks[number];
    const Bank *bank = &rows->banks[number * rows->banks_per_rank];
    wide clock = rank->open_banks ? rank->precharge_ok : 0;
    for (const Bank *end = bank + rows->banks_per_rank; bank < end; bank++) {
        if (!rank->open_banks) clock = later(clock, bank->activate_ok);
        else if (bank->row != CLOSED) clock = later(clock, bank->precharge_ok);
    }
    return clock;
}

static void precharge_all(Rows *rows, wide number, wide clock) {
    Rank *rank = &rows->ranks[number];
    Bank *bank = &rows->banks[number * rows->banks_per_rank];
    for (Bank *end = bank + rows->banks_per_rank; bank < end; bank++) {
        bank->row = CLOSED;
        bank->activate_ok = later(bank->activate_ok, clock + rows->settings->tRPab);
    }
    rank->precharge_ok = clock + rows->settings->tPPD;
    rank->open_banks = 0;
    rows->active_clocks += clock - rank->active_since;
}

static void refresh(Rows *rows, wide number, wide clock) {
    Bank *bank = &rows->banks[number * rows->banks_per_rank];
    for (Bank *end = bank + rows->banks_per_rank; bank < end; bank++)
        bank->activate_ok = clock + rows->settings->tRFC;
    rows->refreshes += 1;
}

/* Clocks before `clock` in which ranks had a row open, summed over ranks. */
static wide active_clocks(const Rows *rows, wide clock) {
    wide sum = rows->active_clocks;
    for (wide i = 0; i < rows->settings->ranks; i++) {
        const Rank *rank = &rows->ranks[i];
        if (rank->open_banks) sum += later(0, clock - rank->active_since);
    }
    return sum;
}
