/* The machine: what an instance is, what a layer says, and every register that control needs.
 *
 * Names are those of rtl/. A structure is the registers of one component at the beginning of a
 * cycle; data have no place here, because nothing in the accelerator's control depends on them.
 */
#ifndef MACHINE_H
#define MACHINE_H

#include <stdint.h>
#include <string.h>

typedef int32_t num;
typedef int64_t wide;

enum { DESCRIPTORS, PARAMETERS, CODEBOOKS, ACTIVATIONS, WEIGHTS, CHANNELS };
enum { MEMORY, CODEBOOK, DECODER, COMPUTE, WRITEBACK, CAUSES };
enum { BUSY = CAUSES, KINDS };
enum { DRAINED = 1, STANDS = 2 };

/* An instance: rtl/accelerator_config.py, and what follows from it. */
typedef struct {
    num bus_bits, rows, columns, d_min, d_max, scale_lanes;
    num burst_granules, outstanding_bursts, layers_in_flight, int8_only;
    num beat_shift;             /* log2 of the beats of a granule */
    num rounds;                 /* rows / scale_lanes */
    /* Quotients that every cycle needs: beats of a descriptor, of a slot of parameters, of a record
       and of a word; words of a beat and of a granule; weights of a beat for each row; steps of a
       row of zeros. */
    num descriptor_beats, slot_beats, record_beats, word_beats, beat_words, granule_words;
    num beat_inputs, zero_steps;
    num direct_fifo_beats;
    num fifo_beats[CHANNELS];
} Config;

/* A layer as its descriptor says it; counts of rtl/program.py that control looks at. */
typedef struct {
    wide parameters, codebook_address, stream_address, input_address, residual_address;
    wide store_address, record;
    num weighted, frees_input, groups, parameter_granules;
    num raw, is_signed, parity, codes, load, zeros;
    num log2_d, index_bits, last_granules, last_sign_granules, codebook_granules;
    num stream_granules, chunks, group_beats, block_beats;
    num tile_log2_d, tile_outputs, tile_columns, identity, tiles;
    num blocks, block_groups, group_blocks, group_inputs, first_channel;
    num out_height, out_width, kernel_y, kernel_x, pool, scale_tiles;
    num input_enable, input_granules, residual_enable, residual_granules, after_writes;
    num positions, addition;
    num store_granules, early;
    num check_cycles;           /* that the checks of the descriptor take */
    num next_weighted, next_load; /* number of the next layer with a stream, with a codebook */
} Layer;

/* A queue of layers: how many are in it, and the number of the oldest. */
typedef struct { num level, head; } Queue;

typedef struct { num state, number, step, wait; } Fetcher;
enum { IDLE, REQUEST, RECEIVE, START, CHECK, JUDGE, NEXT };

typedef struct {
    num remaining, free_beats, inner_level, there;
    num phase;                  /* address in granules, modulo the longest burst */
} Channel;

typedef struct { num input_slots, output_slots, residual_asked; } LoadRequest;
typedef struct {
    num level, layer, second;   /* jobs: the oldest is of `layer`, its `second` one or first */
    num beat, column_step, row_step;
} LoadReceive;
enum { JOBS = 4 };

typedef struct { num step, block, group, of_group; } ParameterReader;

typedef struct { num valid, raw, last, new_book, awaits_codebook; } Slot;

typedef struct {
    num fresh, part, count, chunk;
} Router;
enum { PLANES, SIGNS, RAW };

typedef struct {
    num fresh, count, chunk, signs_taken;
    num held, ended, group_count, block_count;
} Sequencer;

typedef struct {
    num active, layer, beats_left, step;
    num loaded_books, writable_books, any_used;
    num zero_step;
} CodebookLoader;

typedef struct { num piece, valid, last; } Gather;

typedef struct { num full, first_row, inputs_done, row, lane, tiles; } Tile;

typedef struct { num ky, kx, channel; } Tap;
typedef struct { num valid, ends, new_tile, layer_ends, tag; } Piece;
/* Bits of a tag: what a vector of sums is. */
enum { LAST = 1, PARTIAL = 2, LAST_PARTIAL = 4, VALID = 8 };

typedef struct {
    num fresh, lane, ox, oy, group, group_block, block, channel_base, block_base, scale_tile;
    Tap now, begin;
    Piece pieces;
} Walk;

typedef struct { Piece piece, vectors; } VectorReader;

typedef struct {
    num there[4];               /* behind the array's entrance, then in the accumulators */
    num done;                   /* a finished sum and its tag */
    num totals_valid, position;
} Engine;

typedef struct { num valid, number, last; } Place;
typedef struct {
    num held_valid, held_last, number, position, complete;
    Place loaded, multiplied, shifted;
} GroupRescaler;

typedef struct { num valid, last; } Stage;
typedef struct { num number, words_valid; Stage multiplied, shifted; } Requantizer;

typedef struct { num number, sums_valid; Stage multiplied; } Residual;

typedef struct { num position, block; } WordPlace;
typedef struct { num there, all_came, stored; WordPlace come, gone; } OutputBuffer;

typedef struct { num complete, number, there, of_record, join_step, cut_step; } Store;

typedef struct {
    num done, beats_left, pending;
    num awvalid, wvalid, wlast; /* towards the memory */
    num phase;                  /* address of the region in granules, modulo the longest burst */
} WriteDMA;

/* All that the next cycle depends on, but for what the memory has under way. */
typedef struct {
    Queue weight_layers, parameter_regions, parameter_layers, load_layers, tile_layers,
        walk_layers, input_frees, output_layers, store_layers;
    Queue stream_regions, codebook_regions, router_layers, loader_layers, sequencer_layers;
    Fetcher fetcher;
    Channel channels[CHANNELS];
    num arvalid, archannel, arbeats;
    num owners;                 /* bursts whose last beat has not come */
    LoadRequest load_request;
    LoadReceive load_receive;
    ParameterReader parameters;
    Queue scalings;             /* level: entries; head: layer of the oldest */
    num scaling_block;          /* of that layer, its block */
    num in_flight, arrived, full_halves, direct_level;
    Router router;
    Sequencer sequencer;
    CodebookLoader loader;
    Slot slots[4];
    num awaits_codebook;
    Gather gather;
    num dropping;
    Tile tile;
    Walk walk;
    VectorReader reader;
    Engine engine;
    GroupRescaler rescaler;
    Requantizer requantizer;
    Residual residual;
    OutputBuffer outputs;
    Store store;
    WriteDMA writes;
    num records;                /* waiting to be stored */
    num loaded, unwritten, unfinished, walked;
} State;

/* Counters of State whose value matters only where little is left of them: see far.h. Each has a
   number here, by which its turns are counted: how often it began anew. */
enum {
    C_REMAINING, C_LEVEL = 5, C_FREE = 10, C_PHASE = 15, C_ROUTER_COUNT = 20, C_ROUTER_CHUNK, C_COUNT, C_CHUNK,
    C_GROUP_COUNT, C_BLOCK_COUNT, C_FIRST_ROW, C_INPUTS_DONE, C_TILES, C_OX, C_OY, C_GROUP_BLOCK,
    C_BLOCK, C_CHANNEL, C_BEGIN_CHANNEL, C_SCALE_TILE, C_POSITION, C_SCALING_BLOCK,
    C_RESCALER_POSITION, C_PARAMETER_BLOCK, C_PARAMETER_GROUP, C_COME_POSITION, C_COME_BLOCK,
    C_GONE_POSITION, C_GONE_BLOCK, C_STORED, C_NUMBER, C_BEATS_LEFT, C_BEAT, C_DONE, C_BURST_BEATS,
    COUNTS
};

/* What is counted. `kinds` are the cycles of the layer that is at the array. */
typedef struct {
    wide kinds[KINDS];
    wide beats[CHANNELS];
    wide read_bursts, written, write_bursts, layers_done;
} Counters;

/* Signals of one cycle that several components need, from the registers at its beginning. */
typedef struct {
    num everyone;               /* all queues of layers have room */
    num scalings_ready, direct_ready, planes_ready, jobs_ready, owners_ready;
    num residual_load;          /* a word of a residual is written into the output buffer */
    num all_written, awaits_writes;
    num rvalid, rchannel, rlast, bvalid;
    num scales_valid;
    num stored_layer, freed, finished;
    num words_taken, scales_taken, scaling_taken;
    num kind, blocked, busy, awaits_vectors, awaits_weights, layer_ends, take, released;
    num beat_valid, beat_taken;
    num walk_ready, loaded;
    num popped[CHANNELS];
    num handed_on, started, tile_layer_ends;
} Wires;

enum { BURSTS = 64, RESPONSES = 256 };

/* A memory elsewhere, C or Python: hwsim/memory/model.py says what its functions do. Cycles of
   successive calls do not decrease. */
typedef struct {
    void *memory;               /* the first argument of all */
    num (*request)(void *memory, wide cycle, wide address, wide beats, wide beat_bytes); /* 0: taken */
    void (*advance)(void *memory, wide cycle);
    /* Take the next beats that are decided and can be transferred from one cycle on: how many, and
       that cycle. 0 if none is decided. */
    num (*beats)(void *memory, wide *cycle);
    wide (*write)(void *memory, wide cycle, wide address, wide bytes); /* a ticket */
    wide (*written)(void *memory, wide ticket, num settle); /* below 0: not decided */
} Asked;

typedef struct { wide due; num left, channel; } Burst;

/* Times of an ideal memory are in parts of a cycle, `unit` of them in each. */
typedef struct {
    wide unit, beat_time, latency;
    wide free;                  /* when the bandwidth given to earlier beats ends */
    wide beats_due, response_due; /* of an asked memory: what it has decided, below 0: nothing */
    num beats;                  /* that come from `beats_due` on, 0 if that is not decided */
    num is_asked, failed;       /* whether it is asked, and has refused something */
    num first_burst, bursts, first_response, responses;
    Burst burst[BURSTS];
    wide response[RESPONSES];   /* cycle in which each is due, or its ticket */
} Memory;

typedef struct {
    Config config;
    Asked asked;
    const Layer *layers;
    wide *records;              /* [layer_count][KINDS], cycles of each layer */
    wide program;               /* granule of the first descriptor */
    wide cycle;                 /* of the testbench */
    wide read_address[CHANNELS], araddr, write_address, awaddr; /* in bytes */
    wide before[KINDS];         /* of the run, when the layer began that is at the array */
    void *segments;             /* see segments.h */
    const num *kinds_of_layers; /* equal for layers that control cannot tell apart */
    wide skipped;               /* cycles that were not stepped */
    num layer_count, record_number;
    num done;                   /* not 0: the run has ended, or STANDS */
    num leaps, stretch;         /* ways to be fast, 0 for none: see leap.h, segments.h */
    num unused;
    Counters counters;
    num turns[COUNTS];
    Memory memory;
    State state;
    Wires wires;
} Machine;

#endif
