/* Stretches of a run that happen again: remembered as what they begin with and what they change.
 *
 * From states that are alike (far.h), with the memory in the same state and layers of the same
 * counts ahead, the same happens, if every counter that was far from its end stayed far, and would
 * again. Then the changes are made at once.
 */
#include <stdlib.h>

enum { MEMORY_WORDS = 3 + 2 * BURSTS + RESPONSES, TABLE = 1 << 14, SEGMENTS_MAX = 1 << 14 };

typedef struct Segment Segment;
struct Segment {
    Segment *next;
    uint64_t hash;
    State like, before, after;
    Counters change;
    num base, span;             /* layers that were looked at */
    num steps[QUEUES];          /* layers taken from queues that skip some */
    num far[COUNTS], fars;      /* counters that were far from their end at the beginning */
    num stays[COUNTS];          /* and stayed so */
    num value[COUNTS], spent[COUNTS]; /* by number: at the beginning, and how much was used */
    num layer_ended;
    wide cycles;
    num words_before, words_after;
    wide words[];               /* the memory's, before and after */
};

typedef struct {
    num count;
    Segment *table[TABLE];
} Segments;

/* What a state is found by. */
typedef struct {
    State like;
    Counts counts;
    uint64_t hash;
    num words;
    wide word[MEMORY_WORDS];
} View;

static num memory_words(const Machine *m, wide *word) {
    const Memory *memory = &m->memory;
    wide now = m->cycle * memory->unit;
    num n = 0;
    word[n++] = memory->free > now ? memory->free - now : 0;
    word[n++] = memory->bursts | (wide)memory->responses << 32;
    for (num i = 0; i < memory->bursts; i++) {
        const Burst *burst = &memory->burst[(memory->first_burst + i) % BURSTS];
        word[n++] = burst->due - now;
        word[n++] = burst->left | (wide)burst->channel << 32;
    }
    for (num i = 0; i < memory->responses; i++)
        word[n++] = memory->response[(memory->first_response + i) % RESPONSES] - m->cycle;
    return n;
}

static void set_memory(Machine *m, const wide *word) {
    Memory *memory = &m->memory;
    wide now = m->cycle * memory->unit;
    memory->free = now + *word++;
    memory->bursts = (num)*word;
    memory->responses = (num)(*word++ >> 32);
    memory->first_burst = memory->first_response = 0;
    for (num i = 0; i < memory->bursts; i++) {
        memory->burst[i].due = now + *word++;
        memory->burst[i].left = (num)*word;
        memory->burst[i].channel = (num)(*word++ >> 32);
    }
    for (num i = 0; i < memory->responses; i++) memory->response[i] = m->cycle + *word++;
}

static uint64_t mixed(uint64_t hash, const num *numbers, num count) {
    uint64_t lanes[4] = {hash, hash ^ 1, hash ^ 2, hash ^ 3};
    for (num i = 0; i < count; i++)
        lanes[i & 3] = (lanes[i & 3] ^ (uint32_t)numbers[i]) * 0x9E3779B97F4A7C15u + 1;
    return (lanes[0] ^ lanes[1] >> 17) * 31 + (lanes[2] ^ lanes[3] >> 13);
}

static void look_at(const Machine *m, View *view) {
    likeness(m, &view->like, &view->counts);
    view->words = memory_words(m, view->word);
    view->hash = mixed(1, (const num *)&view->like, sizeof(State) / sizeof(num));
    view->hash = mixed(view->hash, (const num *)view->word, 2 * view->words);
    view->hash ^= view->hash >> 29;
}

static num is_again(const Machine *m, const Segment *seg, const View *view) {
    num base = m->state.store_layers.head;
    if (seg->hash != view->hash || seg->words_before != view->words
        || memcmp(&seg->like, &view->like, sizeof(State)) != 0
        || memcmp(seg->words, view->word, view->words * sizeof(wide)) != 0
        || base + seg->span > m->layer_count + LAYERS_TO_COME) return 0;
    for (num i = 0; i < seg->span; i++)
        if (m->kinds_of_layers[base + i] != m->kinds_of_layers[seg->base + i]) return 0;
    for (num i = 0; i < seg->fars; i++) {
        num which = seg->far[i];
        if (seg->stays[i]) {
            num spent = seg->spent[which];
            const num *near = spent ? view->counts.moving : view->counts.near;
            if (view->counts.left[which] - spent < near[which]) return 0;
        } else if (view->counts.value[which] != seg->value[which]) {
            return 0;
        }
    }
    return 1;
}

static void add(Counters *sum, const Counters *change, num sign) {
    wide *to = (wide *)sum;
    const wide *from = (const wide *)change;
    for (num i = 0; i < (num)(sizeof(Counters) / sizeof(wide)); i++) to[i] += sign * from[i];
}

static void repeat(Machine *m, const Segment *seg, const View *view) {
    State now = m->state;
    State *s = &m->state;
    num base = now.store_layers.head;
    *s = seg->after;
    for (num i = 0; i < seg->fars; i++) {
        num which = seg->far[i];
        num *field = (num *)s + view->counts.offset[which];
        if (seg->stays[i]) *field += view->counts.value[which] - seg->value[which];
    }
    for (num i = 0; i < QUEUES; i++) {
        num head = queue_of(&now, i)->head;
        for (num k = 0; k < seg->steps[i]; k++) head = following(m, i, head);
        queue_of(s, i)->head = head;
    }
    s->fetcher.number += base - seg->base;
    s->load_receive.layer += base - seg->base;
    s->loader.layer = s->loader.active ? s->loader.layer + base - seg->base : 0;
    add(&m->counters, &seg->change, 1);
    m->cycle += seg->cycles;
    set_memory(m, seg->words + seg->words_before);
    if (seg->layer_ended) end_layer(m);
}

static void forget(Segments *segments) {
    for (num i = 0; i < TABLE; i++) {
        while (segments->table[i]) {
            Segment *seg = segments->table[i];
            segments->table[i] = seg->next;
            free(seg);
        }
    }
    segments->count = 0;
}

/* Run on for a stretch that may come again, and remember it. */
static void record(Machine *m, Segments *segments, const View *view) {
    Segment *seg = calloc(1, sizeof(Segment) + (view->words + MEMORY_WORDS) * sizeof(wide));
    wide start = m->cycle;
    num turns[COUNTS];
    memcpy(turns, m->turns, sizeof turns);
    num record_number = m->record_number;
    if (seg) {
        seg->before = m->state;
        seg->change = m->counters;
    }
    num ends = 0;
    while (!ends && !m->done) {
        advance(m);
        const Wires *w = &m->wires;
        wide cycles = m->cycle - start;
        num beat = w->rvalid && w->rlast && w->rchannel == WEIGHTS;
        ends = w->layer_ends || cycles >= 8 * m->stretch
            || (cycles >= m->stretch && (w->take || beat));
    }
    if (!seg) return;
    View after;
    look_at(m, &after);
    seg->hash = view->hash;
    seg->like = view->like;
    seg->after = m->state;
    add(&seg->change, &m->counters, -1);
    wide *change = (wide *)&seg->change;
    for (num i = 0; i < (num)(sizeof(Counters) / sizeof(wide)); i++) change[i] = -change[i];
    seg->cycles = m->cycle - start;
    seg->base = seg->before.store_layers.head;
    seg->span = m->state.fetcher.number + 2 - seg->base;
    seg->layer_ended = m->record_number != record_number;
    seg->words_before = view->words;
    seg->words_after = after.words;
    memcpy(seg->words, view->word, view->words * sizeof(wide));
    memcpy(seg->words + view->words, after.word, after.words * sizeof(wide));
    num fits = !m->done && m->state.fetcher.number - seg->before.fetcher.number < LAYERS_TO_COME - 2;
    for (num i = 0; i < QUEUES; i++) {
        num head = queue_of(&seg->before, i)->head, end = queue_of(&m->state, i)->head;
        for (; head != end; head = following(m, i, head)) seg->steps[i] += 1;
    }
    for (num i = 0; i < COUNTS; i++) {
        const Counts *c = &view->counts;
        seg->value[i] = c->value[i];
        if (c->left[i] < c->near[i]) continue;
        num spent = c->left[i] - after.counts.left[i];
        const num *near = spent ? after.counts.moving : after.counts.near;
        num stays = after.counts.left[i] >= near[i] && m->turns[i] == turns[i];
        seg->spent[i] = stays ? spent : 0;
        seg->far[seg->fars] = i;
        seg->stays[seg->fars++] = stays;
    }
    if (!fits) {
        free(seg);
        return;
    }
    if (segments->count >= SEGMENTS_MAX) forget(segments);
    segments->count += 1;
    seg->next = segments->table[seg->hash % TABLE];
    segments->table[seg->hash % TABLE] = seg;
}

static void run_by_segments(Machine *m, Segments *segments, wide until) {
    View view;
    while (!m->done && m->cycle < until) {
        look_at(m, &view);
        Segment *seg = segments->table[view.hash % TABLE];
        while (seg && !is_again(m, seg, &view)) seg = seg->next;
        if (seg) {
            repeat(m, seg, &view);
            m->skipped += seg->cycles;
        } else {
            record(m, segments, &view);
        }
    }
}
