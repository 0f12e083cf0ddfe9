/* A memory that is asked decides late: what comes next may change what comes first.
 *
 * So the model first runs on as if what is open stayed out, to where it would request or write
 * something. Until there nothing else can happen, and time passes for the memory until it decides
 * something. The model has gone back meanwhile, and takes what was decided.
 */

enum { ASK_AHEAD = 256 };

static num beats_open(const Memory *memory) { return memory->bursts > 0 && memory->beats == 0; }

static num response_open(const Memory *memory) {
    return memory->responses > 0 && memory->response_due < 0;
}

static num is_open(const Machine *m) {
    const Memory *memory = &m->memory;
    return memory->is_asked && ((beats_open(memory) && m->cycle >= memory->beats_silent)
        || (response_open(memory) && m->cycle >= memory->response_silent));
}

/* First cycle in which the memory sees something, or something else is open, if nothing comes that
   is open now. */
static wide first_request(Machine *m) {
    Machine before = *m;
    wide limit = m->cycle + ASK_AHEAD;
    m->memory.beats_silent = m->memory.response_silent = limit;
    num beats = beats_open(&before.memory), response = response_open(&before.memory);
    while (!m->done && m->cycle < limit && !m->state.arvalid && !m->state.writes.wvalid
        && beats_open(&m->memory) <= beats && response_open(&m->memory) <= response) advance(m);
    wide cycle = m->cycle;
    *m = before;
    return cycle;
}

static void ask(Machine *m) {
    Memory *memory = &m->memory;
    num beats = beats_open(memory), response = response_open(memory);
    wide ticket = response ? memory->response[memory->first_response] : -1;
    wide until = first_request(m);
    if (beats) memory->groups = 0;
    wide reached = m->asked.pass(m->cycle, until, beats, ticket);
    if (reached <= m->cycle) reached = m->cycle + 1;
    memory->beats_silent = memory->response_silent = 0;
    if (beats && memory->groups > 0) begin_group(memory, 0);
    else if (beats) memory->beats_silent = reached;
    if (response && memory->response_due < 0) memory->response_silent = reached;
}
