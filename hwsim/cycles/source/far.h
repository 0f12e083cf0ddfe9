/* States that are alike: what decides the next cycles, and what does not yet.
 *
 * A counter that is far from its end decides nothing: its value could be another one, and the same
 * would happen, as long as it stays far. So would it in another layer of the same counts, at
 * another time. `likeness` takes all of that out of a state.
 */

/* A counter with more than it takes to its end; lower bits that matter are kept beside. */
enum { FAR = 1 << 30 };

/* Counters of a state: their fields, and how much is left. `near`: less than that may decide. */
typedef struct {
    num offset[COUNTS];         /* of the field in State, in numbers */
    num value[COUNTS], left[COUNTS], near[COUNTS];
    num moving[COUNTS];         /* `near` of a counter that moves, if that is more */
} Counts;

static void count(Counts *counts, State *like, num which, num *field, num left, num near, num keep) {
    counts->offset[which] = (num)(field - (num *)like);
    counts->value[which] = *field;
    counts->left[which] = left;
    counts->near[which] = counts->moving[which] = near;
    if (left >= near) *field = keep | FAR;
}

enum { ENDLESS = 1 << 29 };

static void count_channels(const Machine *m, State *like, Counts *c) {
    const Config *config = &m->config;
    for (num i = 0; i < CHANNELS; i++) {
        Channel *channel = &like->channels[i];
        num remaining = channel->remaining;
        num burst = least(remaining, config->burst_granules - channel->phase);
        num missing = remaining == 0 ? ENDLESS
            : (burst << config->beat_shift) - channel->free_beats;
        count(c, like, C_REMAINING + i, &channel->remaining, remaining, 1, 0);
        c->moving[C_REMAINING + i] = config->burst_granules;
        count(c, like, C_LEVEL + i, &channel->inner_level, channel->inner_level, 2, 0);
        count(c, like, C_FREE + i, &channel->free_beats, missing, 1, 0);
        /* Where the next burst begins is asked when it is requested. */
        count(c, like, C_PHASE + i, &channel->phase, ENDLESS, 1, 0);
    }
}

static void count_decoder(const Machine *m, State *like, Counts *c) {
    num shift = m->config.beat_shift;
    const Layer *layer = &m->layers[like->router_layers.head];
    Router *router = &like->router;
    num active = like->router_layers.level > 0;
    num chunks = active && !layer->raw ? layer->chunks - router->chunk : 0;
    num part = router->fresh ? (layer->raw ? RAW : PLANES) : router->part;
    num granules = part == PLANES ? layer->index_bits : part == RAW ? layer->stream_granules
        : chunks == 1 ? (layer->parity ? 0 : layer->last_sign_granules)
        : (1 << layer->log2_d) - layer->parity;
    count(c, like, C_ROUTER_COUNT, &router->count,
        active ? (granules << shift) - router->count : 0, 2, 0);
    count(c, like, C_ROUTER_CHUNK, &router->chunk, chunks, 2, 0);

    num there = like->sequencer_layers.level > 0;
    layer = &m->layers[like->sequencer_layers.head];
    Sequencer *q = &like->sequencer;
    chunks = there && !layer->raw ? layer->chunks - q->chunk : 0;
    granules = layer->raw ? layer->stream_granules
        : chunks == 1 ? layer->last_granules : 1 << layer->log2_d;
    num phase = layer->parity ? q->count & ((1 << layer->log2_d) - 1) : 0;
    /* The first beat of a group asks for a row of zeros. */
    num zeros = there && layer->zeros;
    num in_group = zeros && q->group_count > 0 ? layer->group_beats - q->group_count : 0;
    count(c, like, C_COUNT, &q->count, there ? (granules << shift) - q->count : 0, 2, phase);
    count(c, like, C_CHUNK, &q->chunk, chunks, 2, 0);
    count(c, like, C_GROUP_COUNT, &q->group_count, in_group, 2, 0);
    count(c, like, C_BLOCK_COUNT, &q->block_count,
        zeros ? layer->block_beats - q->block_count : 0, 2, 0);
    CodebookLoader *loader = &like->loader;
    count(c, like, C_BEATS_LEFT, &loader->beats_left, loader->active ? loader->beats_left : 0, 2, 0);
}

static void count_tile(const Machine *m, State *like, Counts *c) {
    const Config *config = &m->config;
    const Layer *layer = &m->layers[like->tile_layers.head];
    Tile *tile = &like->tile;
    num there = like->tile_layers.level > 0, weighted = there && !layer->identity;
    num inputs = layer->tile_columns << layer->tile_log2_d;
    count(c, like, C_FIRST_ROW, &tile->first_row,
        weighted ? layer->tile_outputs - tile->first_row : 0, 2 * config->rows, 0);
    count(c, like, C_INPUTS_DONE, &tile->inputs_done, weighted ? inputs - tile->inputs_done : 0,
        2 * config->columns, tile->inputs_done & (config->columns - 1));
    count(c, like, C_TILES, &tile->tiles,
        there && layer->identity ? layer->tiles - tile->tiles : 0, 2, 0);
}

static void count_walk(const Machine *m, State *like, Counts *c) {
    num columns = m->config.columns;
    const Layer *layer = &m->layers[like->walk_layers.head];
    Walk *walk = &like->walk;
    num there = like->walk_layers.level > 0;
    /* The first position of all begins a tile. */
    num in_row = there && walk->ox > 0 ? layer->out_width - walk->ox : 0;
    num rows = there && walk->oy > 0 ? layer->out_height - walk->oy : 0;
    num channel = walk->now.channel, begin = walk->begin.channel;
    num inputs = there ? layer->group_inputs - (channel > begin ? channel : begin) : 0;
    num scaled = there && layer->scale_tiles ? layer->scale_tiles - walk->scale_tile : 0;
    count(c, like, C_OX, &walk->ox, in_row, 2, 0);
    count(c, like, C_OY, &walk->oy, rows, 2, 0);
    count(c, like, C_GROUP_BLOCK, &walk->group_block,
        there ? layer->group_blocks - walk->group_block : 0, 2, 0);
    count(c, like, C_BLOCK, &walk->block, there ? layer->blocks - walk->block : 0, 2, 0);
    /* Both move together: their distance is kept. */
    count(c, like, C_CHANNEL, &walk->now.channel, inputs, 2 * columns, channel & (columns - 1));
    count(c, like, C_BEGIN_CHANNEL, &walk->begin.channel, inputs, 2 * columns,
        (channel - begin) & (FAR - 1));
    count(c, like, C_SCALE_TILE, &walk->scale_tile, scaled, 2, 0);
}

static void count_finish(const Machine *m, State *like, Counts *c) {
    const Layer *layer = &m->layers[like->scalings.head];
    count(c, like, C_POSITION, &like->engine.position,
        like->scalings.level > 0 ? layer->positions - like->engine.position : 0, 2, 0);
    count(c, like, C_SCALING_BLOCK, &like->scaling_block, layer->blocks - like->scaling_block, 2, 0);
    num there = like->parameter_layers.level > 0;
    layer = &m->layers[like->parameter_layers.head];
    ParameterReader *p = &like->parameters;
    count(c, like, C_RESCALER_POSITION, &like->rescaler.position,
        there ? layer->positions - like->rescaler.position : 0, 2, 0);
    count(c, like, C_PARAMETER_BLOCK, &p->block, there ? layer->blocks - p->block : 0, 2, 0);
    count(c, like, C_PARAMETER_GROUP, &p->group,
        there && p->of_group ? layer->groups - p->group : 0, 2, p->group & 3);
}

static void count_outputs(const Machine *m, State *like, Counts *c) {
    const Config *config = &m->config;
    num there = like->output_layers.level > 0;
    const Layer *layer = &m->layers[like->output_layers.head];
    OutputBuffer *out = &like->outputs;
    num positions = there ? layer->positions : 0, blocks = there ? layer->blocks : 0;
    count(c, like, C_COME_POSITION, &out->come.position, positions - out->come.position, 2, 0);
    count(c, like, C_COME_BLOCK, &out->come.block, blocks - out->come.block, 2, 0);
    count(c, like, C_GONE_POSITION, &out->gone.position, positions - out->gone.position, 2, 0);
    count(c, like, C_GONE_BLOCK, &out->gone.block, blocks - out->gone.block, 2, 0);

    /* Words that are stored early: only how many are ahead of those that have been read. */
    num storing = like->store_layers.level > 0;
    layer = &m->layers[like->store_layers.head];
    Store *store = &like->store;
    num granules = storing ? (store->of_record ? 1 : layer->store_granules) : 0;
    num words = storing ? layer->store_granules * config->granule_words - store->number : 0;
    num same = storing && there && like->store_layers.head == like->output_layers.head;
    num ahead = out->stored - store->number;
    count(c, like, C_STORED, &out->stored, same && store->complete == 0 && words >= 2 ? ENDLESS : 0,
        2, ahead & (FAR - 1));
    count(c, like, C_NUMBER, &store->number, words, 2, 0);
    WriteDMA *dma = &like->writes;
    count(c, like, C_DONE, &dma->done, granules - dma->done, 2 * config->burst_granules,
        dma->done & (config->burst_granules - 1));
    count(c, like, C_BURST_BEATS, &dma->beats_left, dma->beats_left, 2, 0);
    Job job = oldest_job(m);
    count(c, like, C_BEAT, &like->load_receive.beat,
        job.valid && !job.empty ? (job.granules << config->beat_shift) - like->load_receive.beat : 0,
        2, 0);
}

/* Queues of layers, all of them and those that skip some. */
enum { QUEUES = 15, PLAIN_QUEUES = 9, WEIGHTED_QUEUES = 13 };

static Queue *queue_of(State *s, num i) {
    Queue *queues[QUEUES] = {
        &s->parameter_regions, &s->parameter_layers, &s->load_layers, &s->tile_layers,
        &s->walk_layers, &s->input_frees, &s->output_layers, &s->store_layers, &s->scalings,
        &s->weight_layers, &s->stream_regions, &s->router_layers, &s->sequencer_layers,
        &s->codebook_regions, &s->loader_layers,
    };
    return queues[i];
}

/* The layer that follows one in a queue. */
static num following(const Machine *m, num queue, num layer) {
    if (queue < PLAIN_QUEUES) return layer + 1;
    return queue < WEIGHTED_QUEUES ? m->layers[layer].next_weighted : m->layers[layer].next_load;
}

/* How near the end of the program the fetcher may come before that matters. */
enum { LAYERS_TO_COME = 8, HEADS_AHEAD = 64 };

static void likeness(const Machine *m, State *like, Counts *c) {
    *like = m->state;
    count_channels(m, like, c);
    count_decoder(m, like, c);
    count_tile(m, like, c);
    count_walk(m, like, c);
    count_finish(m, like, c);
    count_outputs(m, like, c);
    num base = m->state.store_layers.head;
    for (num i = 0; i < QUEUES; i++) {
        Queue *queue = queue_of(like, i);
        queue->head = least(queue->head - base, HEADS_AHEAD);
    }
    num to_come = m->layer_count - like->fetcher.number;
    like->fetcher.number = (like->fetcher.number - base) * 16 + least(to_come, LAYERS_TO_COME);
    like->load_receive.layer -= base;
    like->loader.layer = like->loader.active ? like->loader.layer - base : 0;
}
