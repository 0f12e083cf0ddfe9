/* rtl/transfer/load.py and parameters.py: what comes beside weights. */

static void step_parameters(Machine *m) {
    const Config *config = &m->config;
    State *s = &m->state;
    Wires *w = &m->wires;
    ParameterReader *p = &s->parameters;
    num valid = s->channels[PARAMETERS].there;
    num last = p->step == config->slot_beats - 1;
    num slot_ready = 0;
    if (s->parameter_layers.level > 0 && valid && last) {
        const Layer *layer = &m->layers[s->parameter_layers.head];
        num taken = p->of_group ? w->scales_taken : w->scalings_ready;
        num last_group = p->group == layer->groups - 1;
        num block_ends = taken && (p->of_group ? last_group : layer->groups == 0);
        slot_ready = taken && (!p->of_group || last_group || (p->group & 3) == 3);
        if (taken) {
            if (!p->of_group) s->scalings.level += 1;
            m->turns[C_PARAMETER_GROUP] += block_ends;
            p->group = p->of_group && !last_group ? p->group + 1 : 0;
            p->of_group = !block_ends;
            if (block_ends) {
                num layer_ends = p->block == layer->blocks - 1;
                p->block = layer_ends ? 0 : p->block + 1;
                m->turns[C_PARAMETER_BLOCK] += layer_ends;
                if (layer_ends) pop(&s->parameter_layers);
            }
        }
    }
    w->popped[PARAMETERS] = valid && (slot_ready || !last);
    if (w->popped[PARAMETERS]) p->step = last ? 0 : p->step + 1;
}

/* The oldest job of the loader: which part of which layer. */
typedef struct { num valid, granules, residual, last, empty; } Job;

static Job oldest_job(const Machine *m) {
    const LoadReceive *r = &m->state.load_receive;
    const Layer *layer = &m->layers[r->layer];
    Job job;
    job.valid = r->level > 0;
    job.residual = r->second || !layer->input_enable;
    job.last = r->second || !(layer->input_enable && layer->residual_enable);
    job.granules = job.residual ? layer->residual_granules : layer->input_granules;
    job.empty = job.residual && !layer->residual_enable;
    return job;
}

/* Whether a word of a residual is complete in this cycle. */
static num residual_word(const Machine *m, Job job) {
    const Config *config = &m->config;
    num word_bits = 8 * config->rows;
    num there = job.valid && !job.empty && job.residual && m->state.channels[ACTIVATIONS].there;
    return there && (config->bus_bits >= word_bits
        || m->state.load_receive.row_step == config->word_beats - 1);
}

static num step_gear(num *step, num put_bits, num get_bits) {
    num cuts = put_bits >= get_bits;
    num steps = cuts ? put_bits / get_bits : get_bits / put_bits;
    num last = *step == steps - 1;
    *step = last ? 0 : *step + 1;
    return cuts ? last : 1;
}

static void step_receive(Machine *m, Job job) {
    const Config *config = &m->config;
    State *s = &m->state;
    LoadReceive *r = &s->load_receive;
    num taken = 0, ready = 0;
    if (job.valid && job.empty) {
        ready = 1;
    } else if (job.valid && s->channels[ACTIVATIONS].there) {
        taken = job.residual ? step_gear(&r->row_step, config->bus_bits, 8 * config->rows)
            : step_gear(&r->column_step, config->bus_bits, 8 * config->columns);
        ready = taken && r->beat == (job.granules << config->beat_shift) - 1;
    }
    m->wires.popped[ACTIVATIONS] = taken;
    r->beat += taken;
    if (!ready) return;
    r->beat = 0;
    m->turns[C_BEAT] += 1;
    r->level -= 1;
    r->second = !job.last;
    r->layer += job.last;
    s->loaded += job.last;
}

/* Asks for regions. The result is what it asks for, or nothing. */
typedef struct { num valid, granules; wide address; } Region;

static Region wanted_region(const Machine *m) {
    const State *s = &m->state;
    const LoadRequest *r = &s->load_request;
    Region region = {0, 0, 0};
    if (s->load_layers.level == 0) return region;
    const Layer *layer = &m->layers[s->load_layers.head];
    num written = !layer->after_writes || m->wires.all_written;
    num there = r->residual_asked || (written && (!layer->input_enable || r->input_slots != 0)
        && r->output_slots != 0);
    num input = layer->input_enable && !r->residual_asked;
    region.granules = input ? layer->input_granules : layer->residual_granules;
    region.address = input ? layer->input_address : layer->residual_address;
    region.valid = there && (input || layer->residual_enable) && m->wires.jobs_ready;
    return region;
}

static num awaits_writes(const Machine *m) {
    const State *s = &m->state;
    const LoadRequest *r = &s->load_request;
    if (s->load_layers.level == 0 || r->residual_asked) return 0;
    const Layer *layer = &m->layers[s->load_layers.head];
    num written = !layer->after_writes || m->wires.all_written;
    return !written
        || ((!layer->input_enable || r->input_slots != 0) && r->output_slots == 0);
}

/* `region_ready`: the channel takes a region in this cycle. */
static void step_request(Machine *m, num region_ready) {
    State *s = &m->state;
    Wires *w = &m->wires;
    LoadRequest *r = &s->load_request;
    w->started = 0;
    num input_slots = r->input_slots, output_slots = r->output_slots;
    if (w->released) {
        r->input_slots += m->layers[s->input_frees.head].frees_input;
        pop(&s->input_frees);
    }
    r->output_slots += w->freed;
    if (s->load_layers.level == 0 || !w->jobs_ready) return;
    const Layer *layer = &m->layers[s->load_layers.head];
    num written = !layer->after_writes || w->all_written;
    num input = layer->input_enable && !r->residual_asked;
    num enable = input || layer->residual_enable;
    num there = r->residual_asked
        || (written && (!layer->input_enable || input_slots != 0) && output_slots != 0);
    if (!there || (enable && !region_ready)) return;
    num last = r->residual_asked || !(layer->input_enable && layer->residual_enable);
    w->started = !r->residual_asked;
    r->input_slots -= w->started && layer->input_enable;
    r->output_slots -= w->started;
    r->residual_asked = !last;
    s->load_receive.level += 1;
    if (last) pop(&s->load_layers);
}
