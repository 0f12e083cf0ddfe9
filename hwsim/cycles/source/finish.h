/* rtl/compute/requantize.py, rescale.py and the end of engine.py: from finished sums to words. */

/* The result is whether a position is taken. */
static num step_requantizer(Machine *m, num positions_valid) {
    Requantizer *r = &m->state.requantizer;
    num last = r->number == m->config.rounds - 1;
    num advance = !r->words_valid || m->wires.words_taken;
    if (!advance) return 0;
    r->words_valid = r->shifted.valid && r->shifted.last;
    r->shifted = r->multiplied;
    r->multiplied.valid = positions_valid;
    r->multiplied.last = last;
    if (positions_valid) r->number = last ? 0 : r->number + 1;
    return positions_valid && last;
}

/* Sets `blocked` and moves what is behind the accumulators. */
static void step_finish(Machine *m) {
    State *s = &m->state;
    Wires *w = &m->wires;
    Engine *engine = &s->engine;
    GroupRescaler *r = &s->rescaler;
    num rounds = m->config.rounds;

    num scaling_valid = s->scalings.level > 0;
    num taken = step_requantizer(m, engine->totals_valid && scaling_valid);
    num free = !engine->totals_valid || taken;
    num done = engine->done != 0;
    num partial = (engine->done & PARTIAL) != 0;
    num idle = !(r->held_valid || r->loaded.valid || r->multiplied.valid || r->shifted.valid
        || r->complete);
    num direct = done && !partial && idle;
    num rescaled = r->complete;

    /* The rescaler. */
    num finished = r->shifted.valid && r->shifted.last;
    num advance = !(finished && r->complete && !free);
    num step = r->held_valid && w->scales_valid && advance;
    num held_ends = step && r->number == rounds - 1;
    num partials_ready = !r->held_valid || held_ends;
    w->scales_taken = 0;
    if (held_ends) {
        num positions = m->layers[s->parameter_layers.head].positions;
        w->scales_taken = r->position == positions - 1;
    }
    if (free) r->complete = 0;
    if (finished && advance && r->shifted.number == rounds - 1) r->complete = 1;
    if (advance) {
        r->shifted = r->multiplied;
        r->multiplied = r->loaded;
        r->loaded.valid = step;
        r->loaded.number = r->number;
        r->loaded.last = r->held_last;
    }
    if (step) r->number = held_ends ? 0 : r->number + 1;
    if (held_ends) {
        r->held_valid = 0;
        r->position = w->scales_taken ? 0 : r->position + 1;
        m->turns[C_RESCALER_POSITION] += w->scales_taken;
    }
    if (done && partial && partials_ready) {
        r->held_valid = 1;
        r->held_last = (engine->done & LAST_PARTIAL) != 0;
    }

    w->blocked = done && !(partial ? partials_ready : direct && free);
    if (free) engine->totals_valid = rescaled || direct;
    if (taken) {
        const Layer *layer = &m->layers[s->scalings.head];
        num block_ends = engine->position == layer->positions - 1;
        engine->position = block_ends ? 0 : engine->position + 1;
        if (block_ends) {
            s->scalings.level -= 1;
            s->scaling_block += 1;
            m->turns[C_POSITION] += 1;
            if (s->scaling_block == layer->blocks) {
                s->scaling_block = 0;
                m->turns[C_SCALING_BLOCK] += 1;
                s->scalings.head += 1;
            }
        }
    }
}
