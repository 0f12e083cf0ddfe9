/* rtl/compute/tile.py: weights into the next tile. The result is whether a beat is taken. */

static num lowest_one(num value) { return value & -value; }

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
    num rows_left = layer->tile_outputs - tile->first_row;
    num whole = rows_left >= config->rows, last_block = rows_left <= config->rows;
    num inputs = layer->tile_columns << layer->tile_log2_d;
    /* What is written at once: a rectangle of the tile. */
    num divides_row = whole ? lowest_one(inputs | config->beat_inputs) : d;
    num divides_block = lowest_one(whole ? config->rows : rows_left);
    num at_once_inputs = divides_row > d ? divides_row : d;
    num at_once_outputs = least(divides_block, lanes >> layer->tile_log2_d);
    num next_row = tile->row + at_once_outputs;
    num next_lane = tile->lane + at_once_inputs * at_once_outputs;
    num column_ends = next_row == (whole ? config->rows : rows_left);
    num next_inputs = tile->inputs_done + (column_ends ? at_once_inputs : 0);
    num row_ends = column_ends && next_inputs == inputs;
    num tile_ends = column_ends && (row_ends || (next_inputs & (config->columns - 1)) == 0);
    num layer_ends = row_ends && last_block;
    tile->row = column_ends ? 0 : next_row;
    tile->lane = layer_ends ? 0 : next_lane & (lanes - 1);
    tile->inputs_done = row_ends ? 0 : next_inputs;
    if (row_ends) tile->first_row = last_block ? 0 : tile->first_row + config->rows;
    m->turns[C_INPUTS_DONE] += row_ends;
    if (tile_ends) tile->full = 1;
    if (layer_ends) {
        pop(&s->tile_layers);
        m->wires.tile_layer_ends = 1;
        m->turns[C_FIRST_ROW] += 1;
    }
    return next_lane == lanes || layer_ends;
}
