/* rtl/compute/outputs.py and rtl/compute/residual.py: finished words to their places. */

static num step_place(WordPlace *place, const Layer *layer, num *turns) {
    num block_ends = place->position == layer->positions - 1;
    num last = block_ends && place->block == layer->blocks - 1;
    place->position = block_ends ? 0 : place->position + 1;
    if (block_ends) place->block = last ? 0 : place->block + 1;
    turns[0] += block_ends;
    turns[1] += last;
    return last;
}

/* `words_valid`: the requantiser offers a word. */
static void step_outputs(Machine *m, num words_valid) {
    State *s = &m->state;
    Wires *w = &m->wires;
    OutputBuffer *out = &s->outputs;
    Residual *residual = &s->residual;
    num layer_valid = s->output_layers.level > 0;
    const Layer *layer = &m->layers[s->output_layers.head];
    num addition = layer_valid && layer->addition;

    num sums_ready = !w->residual_load;
    num gone = residual->sums_valid && sums_ready;
    num advance = !residual->sums_valid || sums_ready;
    num last = !addition || residual->number == m->config.rounds - 1;
    num residual_ready = advance && last;
    num offered = out->there;
    w->words_taken = words_valid && layer_valid && (!offered || residual_ready) && !out->all_came;

    if (residual_ready) out->there = 0;
    if (advance) {
        residual->sums_valid = residual->multiplied.valid && residual->multiplied.last;
        residual->multiplied.valid = offered;
        residual->multiplied.last = last;
        if (offered) residual->number = last ? 0 : residual->number + 1;
    }
    if (w->words_taken) {
        out->there = 1;
        if (step_place(&out->come, layer, &m->turns[C_COME_POSITION])) out->all_came = 1;
    }
    w->stored_layer = 0;
    if (gone) {
        w->stored_layer = step_place(&out->gone, layer, &m->turns[C_GONE_POSITION]);
        out->stored = w->stored_layer || !layer->early ? 0 : out->stored + 1;
        if (w->stored_layer) {
            m->turns[C_STORED] += 1;
            out->all_came = 0;
            pop(&s->output_layers);
            s->store.complete += 1;
        }
    }
}
