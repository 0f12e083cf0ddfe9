/* rtl/control/fetch.py: descriptors, one after another, to everyone. */

static void step_fetcher(Machine *m, num region_ready) {
    const Config *config = &m->config;
    State *s = &m->state;
    Wires *w = &m->wires;
    Fetcher *f = &s->fetcher;
    num valid = s->channels[DESCRIPTORS].there;
    num last = f->step == config->descriptor_beats - 1;
    num receives = f->state == RECEIVE && f->number != m->layer_count;
    num popped = valid && (receives || !last);
    w->popped[DESCRIPTORS] = popped;
    if (popped) f->step = last ? 0 : f->step + 1;
    w->handed_on = 0;
    switch (f->state) {
    case REQUEST:
        if (f->number == m->layer_count) f->state = IDLE;
        else if (region_ready) f->state = RECEIVE;
        break;
    case RECEIVE:
        if (f->number == m->layer_count) f->state = IDLE;
        else if (valid && last) f->state = START;
        break;
    case START:
        f->wait = m->layers[f->number].check_cycles;
        f->state = CHECK;
        break;
    case CHECK:
        if (f->wait == 0) f->state = JUDGE;
        else f->wait -= 1;
        break;
    case JUDGE:
        w->handed_on = w->everyone;
        if (w->everyone) f->state = NEXT;
        break;
    case NEXT:
        f->number += 1;
        f->state = RECEIVE;
        break;
    }
    if (!w->handed_on) return;
    Queue *queues[] = {
        &s->parameter_regions, &s->parameter_layers, &s->load_layers, &s->tile_layers,
        &s->walk_layers, &s->input_frees, &s->output_layers, &s->store_layers,
    };
    for (num i = 0; i < 8; i++) queues[i]->level += 1;
    s->weight_layers.level += m->layers[f->number].weighted;
}

/* rtl/decode/weights.py: a layer goes to all parts of the decoder. `finished`: the last weights of one
   have left. */
static void step_weights(Machine *m, num finished) {
    State *s = &m->state;
    num room = s->in_flight != m->config.layers_in_flight;
    s->in_flight -= finished;
    if (s->weight_layers.level == 0 || !room) return;
    const Layer *layer = &m->layers[s->weight_layers.head];
    s->in_flight += 1;
    s->weight_layers.level -= 1;
    s->weight_layers.head = layer->next_weighted;
    s->stream_regions.level += 1;
    s->router_layers.level += 1;
    if (m->config.int8_only) return;
    s->sequencer_layers.level += 1;
    s->loader_layers.level += layer->load;
    s->codebook_regions.level += layer->load;
}
