/* rtl/decode/sequencer.py, loader.py, zeros.py, router.py, gather.py, decoder.py and plain.py. */

/* One row of zeros, if the sequencer asks: is one there, and is it the layer's last? */
typedef struct { num valid, last, last_step; } Row;

static Row zero_row(const Machine *m) {
    const Config *config = &m->config;
    const CodebookLoader *loader = &m->state.loader;
    num bus_bytes = config->bus_bits / 8, rows = config->rows;
    num steps = config->zero_steps;
    num beat = loader->active && m->layers[loader->layer].codes
        && m->state.channels[CODEBOOKS].there;
    Row row;
    row.last_step = loader->zero_step == steps - 1;
    row.valid = beat && (rows <= bus_bytes || row.last_step);
    row.last = beat && loader->beats_left == 1 && row.last_step;
    return row;
}

/* Codebooks and zeros from their channel. `take`, `freed`: the decoder starts with a book, and has
   left the one before. */
static void step_loader(Machine *m, Row row, num row_ready, num take, num freed) {
    const Config *config = &m->config;
    State *s = &m->state;
    CodebookLoader *loader = &s->loader;
    const Layer *layer = &m->layers[loader->layer];
    num there = loader->active && s->channels[CODEBOOKS].there;
    num used = 0;
    if (there && layer->codes) {
        num joins = config->rows > config->bus_bits / 8;
        used = joins ? row_ready || !row.last_step : row_ready && row.last_step;
        if (joins ? used : row_ready) loader->zero_step = row.last_step ? 0 : loader->zero_step + 1;
    } else if (there) {
        num steps = (config->bus_bits / 8) >> layer->log2_d;
        used = steps <= 1 || loader->step == steps - 1;
        loader->step = used ? 0 : loader->step + 1;
    }
    num finish = used && loader->beats_left == 1;
    num loaded = finish && !layer->codes;
    m->wires.popped[CODEBOOKS] = used;
    num start = 0;
    if (!loader->active && s->loader_layers.level > 0) {
        const Layer *next = &m->layers[s->loader_layers.head];
        start = next->codes || loader->writable_books != 0;
        loader->writable_books -= start && !next->codes;
    }
    loader->loaded_books += loaded - take;
    loader->writable_books += freed && loader->any_used;
    if (freed) loader->any_used = 1;
    if (used) loader->beats_left -= 1;
    if (finish) loader->active = 0;
    if (start) {
        m->turns[C_BEATS_LEFT] += 1;
        loader->layer = s->loader_layers.head;
        loader->beats_left = m->layers[loader->layer].codebook_granules << config->beat_shift;
        loader->active = 1;
        s->loader_layers.level -= 1;
        s->loader_layers.head = m->layers[s->loader_layers.head].next_load;
    }
}

/* The result is whether the last beat of a stream has passed. */
static num step_router(Machine *m) {
    const Config *config = &m->config;
    State *s = &m->state;
    Wires *w = &m->wires;
    Router *router = &s->router;
    w->popped[WEIGHTS] = 0;
    if (s->router_layers.level == 0 || !s->channels[WEIGHTS].there) return 0;
    const Layer *layer = &m->layers[s->router_layers.head];
    num part = router->fresh ? (layer->raw ? RAW : PLANES) : router->part;
    num last_chunk = router->chunk == layer->chunks - 1;
    num granules, ready, ends, next = PLANES, unused = 0;
    if (part == PLANES) {
        granules = layer->index_bits;
        ready = w->planes_ready;
        next = layer->is_signed ? SIGNS : PLANES;
        ends = !layer->is_signed && last_chunk;
    } else if (part == SIGNS) {
        num steps = layer->last_granules << config->beat_shift;
        granules = last_chunk ? layer->last_sign_granules : (1 << layer->log2_d) - layer->parity;
        unused = layer->parity && last_chunk && router->count >= steps - (steps >> layer->log2_d);
        ready = w->direct_ready || unused;
        ends = last_chunk;
    } else {
        granules = layer->stream_granules;
        ready = w->direct_ready;
        ends = 1;
    }
    if (!ready) return 0;
    num part_ends = router->count == (granules << config->beat_shift) - 1;
    w->popped[WEIGHTS] = 1;
    if (part == PLANES) s->full_halves += part_ends;
    else if (!unused) s->direct_level += 1;
    router->fresh = 0;
    router->part = part;
    router->count += 1;
    if (!part_ends) return 0;
    router->part = next;
    router->count = 0;
    m->turns[C_ROUTER_COUNT] += 1;
    if (next == PLANES) router->chunk += 1;
    if (!ends) return 0;
    router->fresh = 1;
    router->chunk = 0;
    m->turns[C_ROUTER_CHUNK] += 1;
    s->router_layers.level -= 1;
    s->router_layers.head = layer->next_weighted;
    return 1;
}

static void step_gather(Gather *gather, const Slot *slot) {
    gather->valid = slot->valid && (!slot->raw || gather->piece == 7 || slot->last);
    if (!slot->valid) return;
    gather->last = slot->last;
    if (slot->raw) gather->piece = slot->last ? 0 : (gather->piece + 1) & 7;
}

/* All behind the channels of codebooks and weights. */
static void step_decoder(Machine *m, num enable) {
    const Config *config = &m->config;
    State *s = &m->state;
    Sequencer *q = &s->sequencer;
    num layer_valid = s->sequencer_layers.level > 0;
    const Layer *layer = &m->layers[s->sequencer_layers.head];
    Row row = zero_row(m);
    num row_ready = 0, take = 0, left = 0;
    Slot slot = {0, 0, 0, 0, 0};

    if (layer_valid) {
        num last_chunk = q->chunk == layer->chunks - 1;
        num granules = layer->raw ? layer->stream_granules
            : last_chunk ? layer->last_granules : 1 << layer->log2_d;
        num part_ends = q->count == (granules << config->beat_shift) - 1;
        num layer_ends = part_ends && (layer->raw || last_chunk);
        num mask = (1 << layer->log2_d) - 1;
        num signs_left = q->signs_taken != layer->last_sign_granules << config->beat_shift;
        num missing = layer->parity && ((q->count & mask) == mask || (last_chunk && !signs_left));
        num needs_direct = layer->raw || (layer->is_signed && !missing);
        num data_there = (layer->raw || s->full_halves != 0)
            && (!needs_direct || s->direct_level != 0) && (!layer_ends || s->arrived != 0);
        num new_book = q->fresh && layer->load && !layer->codes;
        num book_there = !new_book || s->loader.loaded_books != 0;

        num new_row = layer->zeros && q->group_count == 0 && !q->held && !q->ended;
        num behind = layer->zeros && layer_ends && !new_row && !q->ended;
        num waits = new_row ? !row.valid || (layer_ends && !row.last) : behind;
        slot.valid = data_there && book_there && !waits;
        slot.raw = layer->raw;
        slot.last = layer_ends;
        slot.new_book = new_book;
        slot.awaits_codebook = data_there && !(book_there && !waits);

        num start = slot.valid && enable;
        row_ready = new_row && (!layer_ends || row.last) ? start : new_row || behind;
        if (row.valid && row_ready) {
            q->ended = row.last;
            if (new_row) q->held = 1;
        }
        if (start) {
            take = new_book;
            left = layer_ends;
            s->direct_level -= needs_direct;
            s->full_halves -= part_ends && !layer->raw;
            q->fresh = 0;
            q->count += 1;
            q->signs_taken += needs_direct && layer->parity;
            if (part_ends) {
                q->count = 0;
                m->turns[C_COUNT] += 1;
                q->signs_taken = 0;
                q->chunk += 1;
            }
            q->held = 0;
            if (layer->zeros) {
                num block_ends = q->block_count == layer->block_beats - 1;
                num group_ends = block_ends || q->group_count == layer->group_beats - 1;
                m->turns[C_GROUP_COUNT] += group_ends;
                m->turns[C_BLOCK_COUNT] += block_ends;
                q->group_count = group_ends ? 0 : q->group_count + 1;
                q->block_count = block_ends ? 0 : q->block_count + 1;
            }
            if (layer_ends) {
                q->fresh = 1;
                m->turns[C_CHUNK] += 1;
                m->turns[C_GROUP_COUNT] += 1;
                m->turns[C_BLOCK_COUNT] += 1;
                q->chunk = 0;
                q->ended = q->group_count = q->block_count = 0;
                s->sequencer_layers.level -= 1;
                s->sequencer_layers.head = layer->next_weighted;
            }
        }
    }

    num freed = enable && s->slots[1].valid && s->slots[1].new_book;
    if (enable) {
        s->awaits_codebook = s->slots[3].awaits_codebook && !s->slots[3].valid;
        step_gather(&s->gather, &s->slots[3]);
        s->slots[3] = s->slots[2];
        s->slots[2] = s->slots[1];
        s->slots[1] = s->slots[0];
        s->slots[0] = slot;
    }
    step_loader(m, row, row_ready && row.valid, take, freed);
    s->arrived += step_router(m) - left;
}

/* The decoder of an instance that runs int8 alone. */
static void step_plain(Machine *m, num enable) {
    State *s = &m->state;
    Slot slot = {0, 1, 0, 0, 0};
    const Layer *layer = &m->layers[s->router_layers.head];
    slot.valid = s->channels[WEIGHTS].there && s->router_layers.level > 0;
    slot.last = s->router.count == (layer->stream_granules << m->config.beat_shift) - 1;
    num moved = slot.valid && enable;
    m->wires.popped[WEIGHTS] = moved;
    m->wires.popped[CODEBOOKS] = 0;
    if (enable) step_gather(&s->gather, &slot);
    if (!moved) return;
    s->router.count += 1;
    if (!slot.last) return;
    s->router.count = 0;
    m->turns[C_ROUTER_COUNT] += 1;
    s->router_layers.level -= 1;
    s->router_layers.head = layer->next_weighted;
}
