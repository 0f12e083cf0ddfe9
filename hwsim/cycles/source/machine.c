/* The accelerator's control, cycle by cycle: rtl/accelerator.py without its data.
 *
 * Components are stepped from the end of the data path to its beginning, each in place: who comes
 * later still sees the registers of the cycle that ends in what comes earlier only through Wires.
 */
#include "machine.h"

static void pop(Queue *queue) {
    queue->level -= 1;
    queue->head += 1;
}

#include "walk.h"
#include "write.h"
#include "outputs.h"
#include "finish.h"
#include "engine.h"
#include "tile.h"
#include "decoder.h"
#include "transfer.h"
#include "reads.h"
#include "fetch.h"
#include "memory.h"

/* What components say to each other before any register changes. */
static void look(Machine *m, Job job) {
    const State *s = &m->state;
    Wires *w = &m->wires;
    const ParameterReader *p = &s->parameters;
    num depth = 4;
    w->everyone = s->weight_layers.level != depth && s->parameter_regions.level != depth
        && s->parameter_layers.level != depth && s->load_layers.level != depth
        && s->tile_layers.level != depth && s->walk_layers.level != depth
        && s->input_frees.level != depth && s->output_layers.level != depth
        && s->store_layers.level != depth;
    w->scalings_ready = s->scalings.level != 2;
    w->direct_ready = s->direct_level != m->config.direct_fifo_beats;
    w->planes_ready = s->full_halves != 2;
    w->jobs_ready = s->load_receive.level != JOBS;
    w->owners_ready = s->owners != m->config.outstanding_bursts;
    w->residual_load = residual_word(m, job);
    w->all_written = s->unwritten == 0 && s->writes.pending == 0;
    w->awaits_writes = awaits_writes(m);
    w->scales_valid = s->parameter_layers.level > 0 && p->of_group
        && s->channels[PARAMETERS].there
        && p->step == m->config.slot_beats - 1;
    w->beat_valid = s->gather.valid;
    w->loaded = s->loaded != 0;
    w->tile_layer_ends = 0;
}

/* Why no vector enters the array, or that one does: the end of rtl/accelerator.py. */
static num cause(const Machine *m, num identity, num scaling_valid, num to_come) {
    const Wires *w = &m->wires;
    num awaits_beat = w->awaits_weights && !w->beat_valid && !identity;
    if (w->busy) return BUSY;
    if ((awaits_beat && !m->state.awaits_codebook) || (w->blocked && !scaling_valid)
        || (w->awaits_vectors && !w->awaits_writes && !w->loaded && to_come)) return MEMORY;
    if (awaits_beat) return CODEBOOK;
    if (w->awaits_weights && w->beat_taken) return DECODER;
    if (w->awaits_weights || w->blocked || (w->awaits_vectors && w->loaded)) return COMPUTE;
    return WRITEBACK;
}

/* The layer at the array has given its last vector. */
static void end_layer(Machine *m) {
    wide *record = &m->records[KINDS * m->record_number];
    for (num i = 0; i < KINDS; i++) {
        record[i] = m->counters.kinds[i] - m->before[i];
        m->before[i] = m->counters.kinds[i];
    }
    m->record_number += 1;
}

static void step(Machine *m) {
    State *s = &m->state;
    Wires *w = &m->wires;
    Job job = oldest_job(m);
    drive_memory(m);
    step_memory(m);
    look(m, job);
    Region regions[CHANNELS] = {
        {s->fetcher.state == REQUEST && s->fetcher.number != m->layer_count,
         4 * m->layer_count, m->program},
        {s->parameter_regions.level > 0, 0, 0},
        {s->codebook_regions.level > 0, 0, 0},
        wanted_region(m),
        {s->stream_regions.level > 0, 0, 0},
    };
    num ready[CHANNELS];
    for (num i = 0; i < CHANNELS; i++) ready[i] = s->channels[i].remaining == 0;
    if (regions[PARAMETERS].valid) {
        regions[PARAMETERS].granules = m->layers[s->parameter_regions.head].parameter_granules;
        regions[PARAMETERS].address = m->layers[s->parameter_regions.head].parameters;
        if (ready[PARAMETERS]) pop(&s->parameter_regions);
    }
    if (regions[CODEBOOKS].valid) {
        const Layer *layer = &m->layers[s->codebook_regions.head];
        regions[CODEBOOKS].granules = layer->codebook_granules;
        regions[CODEBOOKS].address = layer->codebook_address;
        if (ready[CODEBOOKS]) {
            s->codebook_regions.level -= 1;
            s->codebook_regions.head = layer->next_load;
        }
    }
    if (regions[WEIGHTS].valid) {
        const Layer *layer = &m->layers[s->stream_regions.head];
        regions[WEIGHTS].granules = layer->stream_granules;
        regions[WEIGHTS].address = layer->stream_address;
        if (ready[WEIGHTS]) {
            s->stream_regions.level -= 1;
            s->stream_regions.head = layer->next_weighted;
        }
    }
    num drained = s->fetcher.state == IDLE && s->unfinished == 0 && s->writes.pending == 0;
    num to_come = s->fetcher.state != IDLE || s->walked != 0;
    num identity = s->tile_layers.level > 0 && m->layers[s->tile_layers.head].identity;
    num scaling_valid = s->scalings.level > 0;

    step_store(m);
    step_outputs(m, s->requantizer.words_valid);
    step_finish(m);
    step_engine(m);
    num tile_takes = step_tile(m, w->beat_valid && !s->dropping);
    w->beat_taken = w->beat_valid && (s->dropping || tile_takes);
    num kind = w->kind = cause(m, identity, scaling_valid, to_come);
    num finished = w->beat_taken && s->gather.last;
    if (finished) s->dropping = 0;
    else if (w->tile_layer_ends) s->dropping = 1;
    num enable = !w->beat_valid || w->beat_taken;
    if (m->config.int8_only) step_plain(m, enable);
    else step_decoder(m, enable);
    step_walk(m, step_reader(m));
    step_parameters(m);
    step_receive(m, job);
    s->loaded -= w->walk_ready;
    step_request(m, ready[ACTIVATIONS] && regions[ACTIVATIONS].valid);
    step_weights(m, finished);
    step_fetcher(m, ready[DESCRIPTORS] && regions[DESCRIPTORS].valid);
    step_reads(m, regions);

    s->records += w->layer_ends;
    s->unwritten += w->started - w->finished;
    s->unfinished += w->handed_on - w->finished;
    s->walked += w->handed_on - w->layer_ends;

    Counters *counters = &m->counters;
    counters->kinds[kind] += 1;
    for (num i = 0; i < CHANNELS; i++) counters->beats[i] += w->popped[i];
    counters->layers_done += w->finished;
    if (w->layer_ends) end_layer(m);
    m->done = drained;
    m->cycle += 1;
}

#include "leap.h"
#include "far.h"
#include "segments.h"

/* Run to the end, or for about so many cycles. */
void signbook_run(Machine *m, wide cycles) {
    wide until = m->cycle + cycles;
    Segments *segments = m->stretch ? m->segments : NULL;
    if (m->stretch && !segments) segments = m->segments = calloc(1, sizeof(Segments));
    if (segments) run_by_segments(m, segments, until);
    while (!m->done && !m->memory.failed && m->cycle < until) advance(m);
}

/* Give back what the run has kept. */
void signbook_forget(Machine *m) {
    if (m->segments) {
        forget(m->segments);
        free(m->segments);
    }
    m->segments = NULL;
}

wide signbook_size(void) { return sizeof(Machine); }
