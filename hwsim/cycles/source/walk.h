/* rtl/compute/walk.py: the pieces of every vector. */

static num least(num a, num b) { return a < b ? a : b; }

static void step_walk(Machine *m, num pieces_ready) {
    State *s = &m->state;
    Walk *walk = &s->walk;
    num columns = m->config.columns;
    num layer_valid = s->walk_layers.level > 0 && m->wires.loaded;
    m->wires.walk_ready = 0;
    if (!layer_valid || (walk->pieces.valid && !pieces_ready)) {
        if (pieces_ready) walk->pieces.valid = 0;
        return;
    }
    const Layer *layer = &m->layers[s->walk_layers.head];
    num base = walk->fresh ? layer->first_channel : walk->channel_base;
    num left_lanes = columns - walk->lane;
    num left_channels = layer->group_inputs - walk->now.channel;
    num left_bytes = columns - ((base + walk->now.channel) & (columns - 1));
    num length = least(least(left_lanes, left_bytes), left_channels);
    num tap_ends = length == left_channels;
    num kx_ends = walk->now.kx == layer->kernel_x - 1;
    num ky_ends = walk->now.ky == layer->kernel_y - 1;
    num inputs_end = tap_ends && kx_ends && ky_ends;
    num vector_ends = length == left_lanes || inputs_end;
    Tap after = walk->now;
    m->turns[C_CHANNEL] += tap_ends;
    if (!tap_ends) {
        after.channel += length;
    } else if (!kx_ends) {
        after.channel = 0;
        after.kx += 1;
    } else if (!ky_ends) {
        after.channel = 0;
        after.kx = 0;
        after.ky += 1;
    } else {
        after = (Tap){0, 0, 0};
    }
    num ox_ends = walk->ox == layer->out_width - 1;
    num oy_ends = walk->oy == layer->out_height - 1;
    num positions_end = ox_ends && oy_ends;
    num first_position = walk->ox == 0 && walk->oy == 0;
    num groups_end = walk->group == layer->block_groups - 1;
    num partial = layer->scale_tiles != 0;
    num sums_end = inputs_end || (partial && walk->scale_tile == layer->scale_tiles - 1);
    num group_ends = walk->group_block == layer->group_blocks - 1;
    num blocks_end = walk->block == layer->blocks - 1;

    Piece *piece = &walk->pieces;
    piece->valid = 1;
    piece->ends = vector_ends;
    piece->new_tile = first_position && walk->group == 0;
    piece->tag = (sums_end && groups_end && (!layer->pool || positions_end) ? LAST : 0)
        | (partial ? PARTIAL : 0) | (inputs_end ? LAST_PARTIAL : 0);
    piece->layer_ends = 0;

    /* Of a channel, only its place in a word matters: the bases are kept modulo that. */
    base &= columns - 1;
    if (walk->fresh) walk->block_base = base;
    walk->fresh = 0;
    walk->channel_base = base;
    walk->now = after;
    walk->lane = (walk->lane + length) & (columns - 1);
    if (!vector_ends) return;
    walk->now = walk->begin;
    walk->lane = 0;
    walk->ox += 1;
    if (!ox_ends) return;
    walk->ox = 0;
    m->turns[C_OX] += 1;
    walk->oy += 1;
    if (!oy_ends) return;
    walk->oy = 0;
    m->turns[C_OY] += 1;
    walk->group += 1;
    walk->channel_base = (base + layer->group_inputs) & (columns - 1);
    if (!groups_end) return;
    walk->group = 0;
    walk->channel_base = walk->block_base;
    walk->now = after;
    walk->begin = after;
    walk->scale_tile = sums_end || !partial ? 0 : walk->scale_tile + 1;
    m->turns[C_SCALE_TILE] += sums_end;
    if (!inputs_end) return;
    walk->block += 1;
    walk->group_block += 1;
    if (group_ends) {
        walk->group_block = 0;
        m->turns[C_GROUP_BLOCK] += 1;
        walk->channel_base = (base + layer->group_inputs) & (columns - 1);
        walk->block_base = walk->channel_base;
    }
    if (!blocks_end) return;
    walk->fresh = 1;
    m->turns[C_BLOCK] += 1;
    m->turns[C_GROUP_BLOCK] += 1;
    walk->block = 0;
    walk->group_block = 0;
    piece->layer_ends = 1;
    m->wires.walk_ready = 1;
    pop(&s->walk_layers);
}
