/* rtl/compute/tile.py: weights into the next tile. The result is whether a beat is taken. */

static num step_tile(Machine *m, num beat_valid) {
    const Config *config = &m->config;
    State *s = &m->state;
    Tile *tile = &s->tile;
    num free = !tile->full || m->wires.take;
    if (m->wires.take) tile->full = 0;
    if (s->tile_layers.level == 0 || !free) return 0;
    const Layer *layer = &m->layers[s->tile_layers.head];
    if (layer->identity) {
        num last = tile->tiles == layer->tiles - 1;
        tile->full = 1;
        tile->tiles = last ? 0 : tile->tiles + 1;
        m->turns[C_TILES] += last;
        if (last) pop(&s->tile_layers);
        return 0;
    }
    if (!beat_valid) return 0;
    num lanes = config->bus_bits, d = 1 << layer->tile_log2_d;
    num per_beat = config->beat_inputs;
    num rows_left = layer->tile_outputs - tile->first_row;
    num whole = rows_left >= config->rows, last_block = rows_left <= config->rows;
    num inputs = layer->tile_columns << layer->tile_log2_d;
    num fast = whole && (inputs & (per_beat - 1)) == 0;
    num last_row = whole ? config->rows - 1 : rows_left - 1;
    num column_ends = fast || tile->row == last_row;
    num next_inputs = tile->inputs_done + (fast ? per_beat : column_ends ? d : 0);
    num row_ends = column_ends && next_inputs == inputs;
    num tile_ends = column_ends && (row_ends || (next_inputs & (config->columns - 1)) == 0);
    num layer_ends = row_ends && last_block;
    num beat_ends = tile->lane + d == lanes || layer_ends;
    if (!fast) {
        tile->row = column_ends ? 0 : tile->row + 1;
        tile->lane = layer_ends ? 0 : (tile->lane + d) & (lanes - 1);
    }
    tile->inputs_done = row_ends ? 0 : next_inputs;
    if (row_ends) tile->first_row = last_block ? 0 : tile->first_row + config->rows;
    m->turns[C_INPUTS_DONE] += row_ends;
    if (tile_ends) tile->full = 1;
    if (layer_ends) {
        pop(&s->tile_layers);
        m->wires.tile_layer_ends = 1;
        m->turns[C_FIRST_ROW] += 1;
    }
    return fast || beat_ends;
}
