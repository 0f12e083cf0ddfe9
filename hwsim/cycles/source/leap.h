/* Cycles in which nothing happens but that a vector enters the array, or that all wait. */

/* Nothing moves on the bus, in a buffer, or into a tile. */
static num calm(const Machine *m) {
    const State *s = &m->state;
    const Wires *w = &m->wires;
    num popped = 0;
    for (num i = 0; i < CHANNELS; i++) popped |= w->popped[i];
    return !(popped || w->rvalid || w->bvalid || s->arvalid || s->writes.awvalid
        || s->writes.wvalid || w->beat_taken || w->words_taken || w->take || w->layer_ends);
}

#define FOREVER ((wide)1 << 40)
enum { ASK_AHEAD = 1 << 16 };

/* Of the cycles from now on, `most` of them, those in which an asked memory is silent; nothing is
   requested or written meanwhile, and it learns how far time has gone. */
static wide asked_silence(Machine *m, wide most) {
    Memory *memory = &m->memory;
    wide cycle = m->cycle, until = cycle + most;
    if ((memory->bursts > 0 || memory->responses > 0) && most > ASK_AHEAD) until = cycle + ASK_AHEAD;
    for (; cycle < until && (beats_open(memory) || response_open(memory)); cycle++) {
        if (beat_comes(m, cycle) || response_comes(m, cycle) || memory->failed) break;
        ask_for_beats(m, cycle);
        ask_for_response(m, cycle);
    }
    if (memory->beats > 0 && memory->beats_due < until) until = memory->beats_due;
    if (memory->responses > 0 && memory->response_due >= 0 && memory->response_due < until)
        until = memory->response_due;
    return (until > cycle ? until : cycle) - m->cycle;
}

/* The same of any memory. */
static wide silence(Machine *m, wide most) {
    const Memory *memory = &m->memory;
    if (memory->is_asked) return asked_silence(m, most);
    wide cycles = most;
    if (memory->bursts > 0) {
        wide due = memory->burst[memory->first_burst].due;
        wide first = (due + memory->unit - 1) / memory->unit - 1;
        if (first - m->cycle < cycles) cycles = first - m->cycle;
    }
    if (memory->responses > 0) {
        wide due = memory->response[memory->first_response];
        if (due - m->cycle < cycles) cycles = due - m->cycle;
    }
    return cycles;
}

/* After a calm step from `before`: repeat it as long as it must be the same. */
static void leap(Machine *m, const State *before) {
    State *s = &m->state;
    const Walk *was = &before->walk;
    num ox = s->walk.ox - was->ox, oy = s->walk.oy - was->oy;
    if (ox < 0 || oy < 0 || ox + oy > 1) return;
    State same = *before;
    same.walk.ox = s->walk.ox;
    same.walk.oy = s->walk.oy;
    if (memcmp(&same, s, sizeof same) != 0) return;
    wide most = FOREVER;
    if (ox + oy) {
        const Layer *layer = &m->layers[s->walk_layers.head];
        most = (ox ? layer->out_width - s->walk.ox : layer->out_height - s->walk.oy) - 2;
    }
    if (most <= 0) return;
    wide cycles = silence(m, most);
    if (cycles >= FOREVER) {
        m->done = STANDS;
        return;
    }
    if (cycles <= 0) return;
    s->walk.ox += ox * (num)cycles;
    s->walk.oy += oy * (num)cycles;
    m->counters.kinds[m->wires.kind] += cycles;
    m->cycle += cycles;
}

/* At least one cycle. */
static void advance(Machine *m) {
    if (!m->leaps || !calm(m)) {
        step(m);
        return;
    }
    State before = m->state;
    step(m);
    if (!m->done && calm(m)) leap(m, &before);
}
