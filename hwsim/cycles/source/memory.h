/* hwsim/simulator/axi/: the memory's side of the bus, with an ideal memory or one that is asked. */

static const Burst *oldest_burst(const Memory *memory) { return &memory->burst[memory->first_burst]; }

/* Parts of a cycle are gone by when the cycle ends: see IdealMemory.ready_cycle. */
static num beat_comes(const Machine *m, wide cycle) {
    const Memory *memory = &m->memory;
    if (memory->bursts == 0) return 0;
    if (!memory->is_asked) return oldest_burst(memory)->due <= (cycle + 1) * memory->unit;
    return memory->beats > 0 && memory->beats_due <= cycle;
}

static num response_comes(const Machine *m, wide cycle) {
    const Memory *memory = &m->memory;
    if (memory->responses == 0) return 0;
    wide due = memory->is_asked ? memory->response_due : memory->response[memory->first_response];
    return due >= 0 && due <= cycle;
}

static num beats_open(const Memory *memory) { return memory->bursts > 0 && memory->beats == 0; }

static num response_open(const Memory *memory) {
    return memory->responses > 0 && memory->response_due < 0;
}

/* At the end of a cycle: time passes for the memory, which may decide what comes next. */
static void ask_for_beats(Machine *m, wide cycle) {
    Memory *memory = &m->memory;
    if (!beats_open(memory)) return;
    m->asked.advance(m->asked.memory, cycle);
    memory->beats = m->asked.beats(m->asked.memory, &memory->beats_due);
}

static void ask_for_response(Machine *m, wide cycle) {
    Memory *memory = &m->memory;
    if (!response_open(memory)) return;
    wide ticket = memory->response[memory->first_response];
    m->asked.advance(m->asked.memory, cycle);
    memory->response_due = m->asked.written(m->asked.memory, ticket, 0);
}

/* What the design sees in this cycle. */
static void drive_memory(Machine *m) {
    Memory *memory = &m->memory;
    Wires *w = &m->wires;
    w->rvalid = beat_comes(m, m->cycle);
    w->bvalid = response_comes(m, m->cycle);
    if (w->rvalid) {
        Burst *burst = &memory->burst[memory->first_burst];
        burst->due += memory->beat_time;
        burst->left -= 1;
        memory->beats -= memory->is_asked;
        w->rchannel = burst->channel;
        w->rlast = burst->left == 0;
        if (w->rlast) {
            memory->first_burst = (memory->first_burst + 1) % BURSTS;
            memory->bursts -= 1;
        }
    }
    if (w->bvalid) {
        memory->first_response = (memory->first_response + 1) % RESPONSES;
        memory->responses -= 1;
        memory->response_due = -1;
    }
}

/* What the memory sees in this cycle. */
static void step_memory(Machine *m) {
    Memory *memory = &m->memory;
    const State *s = &m->state;
    if (s->arvalid) {
        Burst *burst = &memory->burst[(memory->first_burst + memory->bursts) % BURSTS];
        memory->bursts += 1;
        burst->left = s->arbeats;
        burst->channel = s->archannel;
        if (memory->is_asked) {
            burst->due = 0;
            if (m->asked.request(m->asked.memory, m->cycle, m->araddr, s->arbeats,
                                 m->config.bus_bits / 8)) memory->failed = 1;
        } else {
            wide start = (m->cycle + memory->latency) * memory->unit;
            if (start < memory->free) start = memory->free;
            burst->due = start + memory->beat_time;
            memory->free = start + s->arbeats * memory->beat_time;
        }
        m->counters.read_bursts += 1;
    }
    if (memory->is_asked) ask_for_beats(m, m->cycle);
    if (s->writes.awvalid) {
        m->awaddr = m->write_address;
        m->counters.write_bursts += 1;
    }
    if (s->writes.wvalid) {
        wide due;
        if (memory->is_asked) {
            due = m->asked.write(m->asked.memory, m->cycle, m->awaddr, m->config.bus_bits / 8);
            if (due < 0) memory->failed = 1;
            m->awaddr += m->config.bus_bits / 8;
        } else {
            wide start = m->cycle * memory->unit;
            if (start < memory->free) start = memory->free;
            memory->free = start + memory->beat_time;
            due = memory->latency + (memory->free - 1) / memory->unit;
        }
        if (s->writes.wlast) {
            memory->response[(memory->first_response + memory->responses) % RESPONSES] = due;
            memory->responses += 1;
        }
        m->counters.written += 1;
    }
    if (memory->is_asked) ask_for_response(m, m->cycle);
}
