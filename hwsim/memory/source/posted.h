/* Writes in the care of the controller, answered before they are in the memory.
 *
 * A column goes to its channel when all of its bytes have come, or another one is written. A beat
 * is answered when fewer than `write_columns` columns that were written before it wait.
 */

/* Of each beat: arrival, channel, and columns written to that before. */
typedef struct { wide arrival, before; num channel; } Beat;

enum { BUCKETS = 1024 };

typedef struct {
    uint64_t open;              /* number of the column that has begun */
    num is_open;
    wide open_bytes;
    Column *buckets[BUCKETS];   /* those that wait, by number */
    wide order;
    Beat *beats;                /* by ticket, modulo the room */
    wide first_beat, end_beat, room;
} Posted;

/* A ring with room for one more, which takes the place of the one given; NULL if there is no
   memory, and that one stays. */
static void *widened(void *ring, wide *room, wide first, wide end, size_t bytes) {
    if (end - first < *room) return ring;
    wide wider = *room ? 2 * *room : 64;
    char *to = malloc((size_t)wider * bytes), *from = ring;
    if (!to) return NULL;
    for (wide i = first; i < end; i++)
        memcpy(to + (size_t)(i & (wider - 1)) * bytes,
               from + (size_t)(i & (*room - 1)) * bytes, bytes);
    free(from);
    *room = wider;
    return to;
}

static Column **bucket_of(Posted *posted, uint64_t number) {
    return &posted->buckets[number % BUCKETS];
}

static Column *waiting_write(Posted *posted, uint64_t number) {
    Column *column = *bucket_of(posted, number);
    while (column && column->number != number) column = column->other;
    return column;
}

/* A column has been written. */
static void forget_write(Posted *posted, Column *column) {
    Column **place = bucket_of(posted, column->number);
    while (*place != column) place = &(*place)->other;
    *place = column->other;
}

/* The clock of a write is kept; there has been room for it since it was handed over. */
static void count_write(Channel *ch, wide clock) {
    ch->clocks[ch->written & (ch->clocks_room - 1)] = clock;
    ch->written += 1;
    ch->waiting_writes -= 1;
}

/* A beat and all before it have been answered, and with them the clocks of writes that they ask
   for. */
static void forget_beat(Posted *posted, Channel *channels, wide capacity) {
    const Beat *beat = &posted->beats[posted->first_beat & (posted->room - 1)];
    Channel *ch = &channels[beat->channel];
    ch->first_clock = later(ch->first_clock, earlier(beat->before - capacity, ch->written));
    posted->first_beat += 1;
}
