/* DRAM behind an AXI port: bursts become columns of channels, and these beats in order.
 *
 * Python and the cycle model call the functions at the end: hwsim/memory/model.py says what they
 * do. What is decided does not depend on who asks, nor on when.
 */
#include <string.h>

#include "settings.h"
#include "clocks.h"
#include "column.h"
#include "side.h"
#include "rows.h"
#include "refresh.h"
#include "channel.h"
#include "arbiter.h"
#include "posted.h"

typedef struct {
    Settings settings;
    Channel *channels;
    Posted posted;
    Pool pool;
    Column *oldest, *youngest;  /* of the columns that were asked for and have beats left */
    wide order;
    wide known;                 /* clock before which nothing arrives any more */
    wide latest;                /* end of the last column that was looked at */
    num column_shift;           /* log2 of the bytes of a column */
} Dram;

#include "run.h"

/* Why something is refused; not refused is 0 or more. */
enum { NOT_YET = -1, NO_MEMORY = -2, IMPOSSIBLE = -3 };

/* More than this in one burst is a mistake. */
#define BURST_BYTES_MAX ((wide)1 << 31)

static void place_column(const Settings *s, Column *column) {
    uint64_t number = column->number;
    wide rank = number >> s->rank_at & s->rank_mask, group = number >> s->group_at & s->group_mask;
    wide bank = number >> s->bank_at & s->bank_mask;
    column->channel = number >> s->channel_at & s->channel_mask;
    column->row = number >> s->row_at & s->row_mask;
    column->bank = (num)((rank * s->bank_groups + group) * s->banks_per_group + bank);
}

/* Whether a column waits to be written; nothing arrives before a clock any more. */
static num waits(Dram *dram, uint64_t number, wide clock) {
    Posted *posted = &dram->posted;
    if (posted->is_open && posted->open == number) return 1;
    const Column *column = waiting_write(posted, number);
    if (!column) return 0;
    run(dram, &dram->channels[column->channel], clock, NULL, NEVER);
    return waiting_write(posted, number) != NULL;
}

/* The column that has begun goes to its channel. */
static num hand_over(Dram *dram, wide arrival) {
    Posted *posted = &dram->posted;
    if (!posted->is_open) return 0;
    Column place = {.number = posted->open};
    place_column(&dram->settings, &place);
    Channel *ch = &dram->channels[place.channel];
    wide end = ch->written + ch->waiting_writes;
    wide *clocks = widened(ch->clocks, &ch->clocks_room, ch->first_clock, end, sizeof(wide));
    if (!clocks) return NO_MEMORY;
    ch->clocks = clocks;
    Column *column = new_column(&dram->pool);
    if (!column) return NO_MEMORY;
    *column = place;
    column->order = posted->order++;
    column->arrival = arrival;
    column->due = -1;
    Column **bucket = bucket_of(posted, column->number);
    column->other = *bucket;
    *bucket = column;
    posted->is_open = 0;
    posted->open_bytes = 0;
    take_column(ch, &ch->writes, column);
    return 0;
}

static void drop_oldest(Dram *dram) {
    Column *column = dram->oldest;
    dram->oldest = column->other;
    free_column(&dram->pool, column);
}

void signbook_dram_free(Dram *dram) {
    for (wide i = 0; dram->channels && i < dram->settings.channels; i++)
        end_channel(&dram->channels[i]);
    while (dram->pool.blocks) {
        Block *block = dram->pool.blocks;
        dram->pool.blocks = block->next;
        free(block);
    }
    free(dram->channels);
    free(dram->posted.beats);
    free(dram);
}

/* NULL if there is no memory. */
Dram *signbook_dram_new(const Settings *settings, Trace trace) {
    Dram *dram = calloc(1, sizeof(Dram));
    if (!dram) return NULL;
    dram->settings = *settings;
    while ((wide)1 << dram->column_shift < settings->column_bytes) dram->column_shift += 1;
    dram->channels = calloc(settings->channels, sizeof(Channel));
    num there = dram->channels != NULL;
    for (wide i = 0; there && i < settings->channels; i++)
        there = begin_channel(&dram->channels[i], &dram->settings, (num)i, trace);
    if (there) return dram;
    signbook_dram_free(dram);
    return NULL;
}

num signbook_dram_request(Dram *dram, wide cycle, uint64_t address, wide beats, wide beat_bytes) {
    wide bytes;
    if (beats < 1 || beat_bytes < 1 || __builtin_mul_overflow(beats, beat_bytes, &bytes)
        || bytes > BURST_BYTES_MAX) return IMPOSSIBLE;
    wide arrival = arrival_of(&dram->settings, cycle);
    dram->known = later(dram->known, arrival);
    wide size = dram->settings.column_bytes, given = 0;
    wide behind = address & (size - 1); /* of the first column, in front of the burst */
    wide columns = (behind + bytes + size - 1) >> dram->column_shift;
    uint64_t number = address >> dram->column_shift;
    for (wide i = 0; i < columns; i++, number++) {
        Column *column = new_column(&dram->pool);
        if (!column) return NO_MEMORY;
        wide reached = earlier(((i + 1) * size - behind) / beat_bytes, beats);
        column->beats = (num)(reached - given);
        given = reached;
        column->number = number;
        column->order = dram->order++;
        column->arrival = arrival;
        column->due = -1;
        column->other = NULL;
        place_column(&dram->settings, column);
        if (dram->oldest) dram->youngest->other = column;
        else dram->oldest = column;
        dram->youngest = column;
        Channel *ch = &dram->channels[column->channel];
        if (waits(dram, number, arrival)) column->due = arrival;
        else take_column(ch, &ch->reads, column);
    }
    return 0;
}

void signbook_dram_advance(Dram *dram, wide cycle) {
    dram->known = later(dram->known, arrival_of(&dram->settings, cycle));
}

/* The next beat's cycle, or NOT_YET. */
wide signbook_dram_ready(Dram *dram, num settle) {
    Column *column;
    while ((column = dram->oldest)) {
        if (column->due < 0) {
            Channel *ch = &dram->channels[column->channel];
            run(dram, ch, settle ? NEVER : dram->known, settle ? column : NULL, NEVER);
            if (column->due < 0) return NOT_YET;
        }
        dram->latest = later(dram->latest, column->due);
        if (column->beats) return cycle_of(&dram->settings, dram->latest);
        drop_oldest(dram);
    }
    return NOT_YET;
}

/* How many beats are taken, `most` at most, all of one column: none if the next is not decided. */
num signbook_dram_pop(Dram *dram, num most) {
    Column *column = dram->oldest;
    if (!column || column->due < 0) return 0;
    num beats = column->beats < most ? column->beats : most;
    column->beats -= beats;
    if (!column->beats) drop_oldest(dram);
    return beats;
}

/* All beats that came with the next one, if its cycle is decided, and that: none if it is not. */
num signbook_dram_beats(Dram *dram, wide *cycle) {
    *cycle = signbook_dram_ready(dram, 0);
    return *cycle < 0 ? 0 : signbook_dram_pop(dram, INT32_MAX);
}

/* A ticket. */
wide signbook_dram_write(Dram *dram, wide cycle, uint64_t address, wide bytes) {
    if (bytes < 1 || bytes > BURST_BYTES_MAX) return IMPOSSIBLE;
    Posted *posted = &dram->posted;
    wide arrival = arrival_of(&dram->settings, cycle);
    dram->known = later(dram->known, arrival);
    Beat *beats = widened(posted->beats, &posted->room, posted->first_beat, posted->end_beat,
                          sizeof(Beat));
    if (!beats) return NO_MEMORY;
    posted->beats = beats;
    wide size = dram->settings.column_bytes, left = bytes, behind = address & (size - 1);
    Beat beat = {arrival, 0, 0};
    for (uint64_t number = address >> dram->column_shift; left > 0; number++, behind = 0) {
        Column column = {.number = number};
        place_column(&dram->settings, &column);
        const Channel *ch = &dram->channels[column.channel];
        beat.channel = column.channel;
        beat.before = ch->written + ch->waiting_writes;
        if (!posted->is_open || posted->open != number) {
            if (hand_over(dram, arrival)) return NO_MEMORY;
            posted->is_open = 1;
            posted->open = number;
        }
        wide part = earlier(left, size - behind);
        left -= part;
        posted->open_bytes += part;
        if (posted->open_bytes >= size && hand_over(dram, arrival)) return NO_MEMORY;
    }
    posted->beats[posted->end_beat & (posted->room - 1)] = beat;
    return posted->end_beat++;
}

/* The cycle of an answer, or NOT_YET. Tickets are asked for in the order of writes. */
wide signbook_dram_written(Dram *dram, wide ticket, num settle) {
    Posted *posted = &dram->posted;
    wide capacity = dram->settings.write_columns;
    if (ticket < posted->first_beat || ticket >= posted->end_beat) return IMPOSSIBLE;
    while (posted->first_beat < ticket) forget_beat(posted, dram->channels, capacity);
    Beat beat = posted->beats[ticket & (posted->room - 1)];
    Channel *ch = &dram->channels[beat.channel];
    wide clock = beat.arrival, gone = beat.before - capacity + 1;
    if (gone > 0) {
        if (ch->written < gone) run(dram, ch, settle ? NEVER : dram->known, NULL, gone);
        if (ch->written < gone) return NOT_YET;
        clock = later(clock, ch->clocks[(gone - 1) & (ch->clocks_room - 1)]);
    }
    wide cycle = cycle_of(&dram->settings, clock);
    if (settle) signbook_dram_advance(dram, cycle);
    return cycle;
}

/* Up to a cycle: columns read and written, rows opened, refreshes, and clocks with a row open. */
void signbook_dram_count(Dram *dram, wide cycle, wide counts[5]) {
    wide clock = begun_at(&dram->settings, cycle);
    memset(counts, 0, 5 * sizeof(wide));
    signbook_dram_advance(dram, cycle);
    for (wide i = 0; i < dram->settings.channels; i++) {
        Channel *ch = &dram->channels[i];
        run(dram, ch, clock, NULL, NEVER);
        counts[0] += ch->read;
        counts[1] += ch->written;
        counts[2] += ch->rows.activates;
        counts[3] += ch->rows.refreshes;
        counts[4] += active_clocks(&ch->rows, clock);
    }
}
