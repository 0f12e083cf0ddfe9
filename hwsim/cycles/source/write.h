/* rtl/transfer/store.py and rtl/bus/write.py: finished outputs and records to memory. */

static void step_store(Machine *m) {
    const Config *config = &m->config;
    State *s = &m->state;
    Wires *w = &m->wires;
    Store *store = &s->store;
    WriteDMA *dma = &s->writes;
    num layer_valid = s->store_layers.level > 0;
    const Layer *layer = &m->layers[s->store_layers.head];
    num word_bits = 8 * config->rows, bus_bits = config->bus_bits;
    num ready = dma->beats_left != 0;

    /* Words joined to beats or cut into them; or a record cut into beats. */
    num valid, taken = 0;
    if (store->of_record) {
        valid = s->records > 0;
        if (valid && ready) {
            num last = store->cut_step == config->record_beats - 1;
            store->cut_step = last ? 0 : store->cut_step + 1;
            s->records -= last;
        }
    } else if (word_bits >= bus_bits) {
        num last = store->join_step == config->word_beats - 1;
        valid = store->there;
        taken = valid && ready && last;
        if (valid && ready) store->join_step = last ? 0 : store->join_step + 1;
    } else {
        num last = store->join_step == config->beat_words - 1;
        valid = store->there && last;
        taken = store->there && (ready || !last);
        if (taken) store->join_step = last ? 0 : store->join_step + 1;
    }

    /* Bursts. */
    num granules = layer_valid ? (store->of_record ? 1 : layer->store_granules) : 0;
    wide address = store->of_record ? layer->record : layer->store_address;
    num remaining = granules - dma->done;
    num opens = layer_valid && valid && !ready && remaining != 0 && dma->pending != 255;
    num moved = valid && ready;
    num last_beat = dma->beats_left == 1;
    num region_ready = moved && last_beat && remaining == 0;
    dma->pending += opens - w->bvalid;
    dma->awvalid = opens;
    dma->wvalid = moved;
    dma->wlast = last_beat;
    if (opens) {
        num mask = config->burst_granules - 1;
        num to_boundary = config->burst_granules - ((address + dma->done) & mask);
        num now = remaining < to_boundary ? remaining : to_boundary;
        m->write_address = (address + dma->done) << 6;
        dma->beats_left = now << config->beat_shift;
        dma->done += now;
        m->turns[C_BURST_BEATS] += 1;
    }
    if (moved) dma->beats_left -= 1;
    if (region_ready) {
        dma->done = 0;
        m->turns[C_DONE] += 1;
    }

    num words = layer_valid ? layer->store_granules * config->granule_words : 0;
    num ahead = store->number + taken;
    w->freed = taken && store->number == words - 1;
    w->finished = store->of_record && region_ready;
    store->there = layer_valid && !store->of_record && !w->freed && ahead != words
        && (store->complete != 0 || (layer->early && ahead < s->outputs.stored));
    store->number = w->freed ? 0 : ahead;
    m->turns[C_NUMBER] += w->freed;
    store->complete -= w->freed;
    if (w->freed) store->of_record = 1;
    if (w->finished) {
        store->of_record = 0;
        pop(&s->store_layers);
    }
}
