
uint64_t sb_get(const void *layout, unsigned bit, unsigned bits)
{
    const uint8_t *bytes = layout;
    uint64_t value = 0;
    for (unsigned i = 0; i < bits; i++, bit++)
        value |= (uint64_t)(bytes[bit / 8] >> bit % 8 & 1u) << i;
    return value;
}

void sb_set(void *layout, unsigned bit, unsigned bits, uint64_t value)
{
    uint8_t *bytes = layout;
    for (unsigned i = 0; i < bits; i++, bit++) {
        uint8_t mask = (uint8_t)(1u << bit % 8);
        bytes[bit / 8] = (uint8_t)((bytes[bit / 8] & ~mask) | (value >> i & 1u ? mask : 0));
    }
}

int sb_present(uintptr_t base)
{
    return SB_READ(base, SB_REG_IDENTITY) == SB_IDENTITY;
}

void sb_relocate(void *program, uint32_t layers, uint64_t offset)
{
    uint8_t *layer = program;
    for (; layers; layers--, layer += SB_LAYER_BYTES) {
#define SB_MOVE(field, unit) SB_SET(layer, field, SB_GET(layer, field) + offset / (unit));
#ifdef SB_VECTOR_VERSION
        if (SB_GET(layer, SB_LAYER_VERSION) == SB_VECTOR_VERSION) {
            SB_VECTOR_ADDRESSES(SB_MOVE)
            continue;
        }
#endif
        SB_LAYER_ADDRESSES(SB_MOVE)
#undef SB_MOVE
    }
}

int sb_start(uintptr_t base, uint64_t program, uint32_t layers, int interrupt)
{
    if (SB_READ(base, SB_REG_STATUS) & SB_STATUS_BUSY)
        return -1;
    SB_FENCE();
    SB_WRITE(base, SB_REG_PROGRAM_LOW, (uint32_t)program);
    SB_WRITE(base, SB_REG_PROGRAM_HIGH, (uint32_t)(program >> 32));
    SB_WRITE(base, SB_REG_LAYERS, layers);
    SB_WRITE(base, SB_REG_CONTROL, SB_CONTROL_START | (interrupt ? SB_CONTROL_INTERRUPT : 0u));
    return 0;
}

enum sb_status sb_wait(uintptr_t base)
{
    uint32_t status;
    while (!((status = SB_READ(base, SB_REG_STATUS)) & SB_STATUS_DONE))
        SB_PAUSE();
    SB_FENCE();
    return (enum sb_status)(status >> 8 & 0xffu);
}

uint32_t sb_failed_layer(uintptr_t base)
{
    return SB_READ(base, SB_REG_STATUS) >> 16;
}

void sb_read_counters(uintptr_t base, struct sb_counters *counters)
{
#define SB_COUNT(name, member) counters->member = SB_READ(base, SB_REG_##name);
    SB_COUNTERS(SB_COUNT)
#undef SB_COUNT
}

const char *sb_meaning(enum sb_status status)
{
    switch (status) {
#define SB_CASE(name, code, meaning) \
    case SB_RUN_##name: \
        return meaning;
        SB_STATUSES(SB_CASE)
#undef SB_CASE
    }
    return "Not a status of this version.";
}
