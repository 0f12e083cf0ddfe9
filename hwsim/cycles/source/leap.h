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

/* Cycles from now on in which the memory is silent. */
static wide silence(const Machine *m) {
    const Memory *memory = &m->memory;
    wide cycles = (wide)1 << 40;
    if (memory->is_asked) {
        if (memory->beats > 0) cycles = memory->beats_due - m->cycle;
        else if (memory->bursts > 0) cycles = memory->beats_silent - m->cycle;
        if (memory->responses > 0) {
            wide due = memory->response_due >= 0 ? memory->response_due : memory->response_silent;
            if (due - m->cycle < cycles) cycles = due - m->cycle;
        }
        return cycles;
    }
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
    wide cycles = silence(m);
    if (ox + oy) {
        const Layer *layer = &m->layers[s->walk_layers.head];
        num left = ox ? layer->out_width - s->walk.ox : layer->out_height - s->walk.oy;
        if (left - 2 < cycles) cycles = left - 2;
    } else if (cycles >> 40) {
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
