/* rtl/bus/dma.py and rtl/bus/channel.py: regions to bursts, beats to buffers. */

static void step_channel(Channel *channel, num arrived, num popped) {
    num inner_read = channel->inner_level != 0 && (!channel->there || popped);
    channel->inner_level += arrived - inner_read;
    channel->there = inner_read || (channel->there && !popped);
    channel->free_beats += popped;
}

static void take_region(Channel *channel, Region region, num mask) {
    channel->remaining = region.granules;
    channel->phase = region.address & mask;
}

/* `regions` are offered; those of channels without anything remaining are taken. */
static void step_reads(Machine *m, const Region *regions) {
    const Config *config = &m->config;
    State *s = &m->state;
    Wires *w = &m->wires;
    num mask = config->burst_granules - 1;
    num issued = -1, granules = 0, beats = 0;
    for (num i = 0; i < CHANNELS && issued < 0 && w->owners_ready; i++) {
        const Channel *channel = &s->channels[i];
        if (channel->remaining == 0) continue;
        granules = least(channel->remaining, config->burst_granules - channel->phase);
        beats = granules << config->beat_shift;
        if (channel->free_beats >= beats) issued = i;
    }
    for (num i = 0; i < CHANNELS; i++) {
        Channel *channel = &s->channels[i];
        if (channel->remaining == 0 && regions[i].valid) {
            take_region(channel, regions[i], mask);
            m->turns[C_REMAINING + i] += 1;
            m->turns[C_PHASE + i] += 1;
            m->turns[C_FREE + i] += 1; /* what there is to ask for has changed */
            m->read_address[i] = regions[i].address << 6;
        }
        num arrived = w->rvalid && w->rchannel == i;
        m->turns[C_LEVEL + i] += arrived;
        step_channel(channel, arrived, w->popped[i]);
    }
    s->arvalid = issued >= 0;
    s->archannel = s->arbeats = 0;
    if (issued >= 0) {
        Channel *channel = &s->channels[issued];
        m->turns[C_REMAINING + issued] += channel->remaining < config->burst_granules;
        m->turns[C_PHASE + issued] += 1;
        channel->remaining -= granules;
        channel->free_beats -= beats;
        channel->phase = (channel->phase + granules) & mask;
        m->turns[C_FREE + issued] += 1;
        s->archannel = issued;
        s->arbeats = beats;
        m->araddr = m->read_address[issued];
        m->read_address[issued] += (wide)granules << 6;
        s->owners += 1;
    }
    s->owners -= w->rvalid && w->rlast;
}
