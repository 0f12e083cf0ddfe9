
/* ---- Driver ---------------------------------------------------------------------------------
 *
 * Bare metal: no library, no memory of its own, any C99 compiler. Define these before the header
 * is included where the defaults do not fit.
 */

/* Accesses to a register: whole words, in order. */
#ifndef SB_READ
#define SB_READ(base, offset) (*(volatile uint32_t *)((uintptr_t)(base) + (offset)))
#endif
#ifndef SB_WRITE
#define SB_WRITE(base, offset, value) \
    (*(volatile uint32_t *)((uintptr_t)(base) + (offset)) = (uint32_t)(value))
#endif

/* Before a start and after an end: what the host wrote is in memory, and it reads what is there
 * now. A host with caches that the bus does not see must also clean and invalidate them here. */
#ifndef SB_FENCE
#define SB_FENCE() __sync_synchronize()
#endif

/* Between two looks at STATUS: wait for an interrupt, let others work, or nothing. */
#ifndef SB_PAUSE
#define SB_PAUSE() ((void)0)
#endif

#define SB_CONTROL_START 0x1u
#define SB_CONTROL_INTERRUPT 0x2u
#define SB_STATUS_BUSY 0x1u
#define SB_STATUS_DONE 0x2u

/* A field of a descriptor or record by its name: SB_GET(layer, SB_LAYER_VERSION). */
#define SB_GET(layout, field) sb_get((layout), field##_BIT, field##_BITS)
#define SB_SET(layout, field, value) sb_set((layout), field##_BIT, field##_BITS, (value))
uint64_t sb_get(const void *layout, unsigned bit, unsigned bits);
void sb_set(void *layout, unsigned bit, unsigned bits, uint64_t value);

/* Whether there is an accelerator of this register map at `base`. */
int sb_present(uintptr_t base);

/* Move a program: add `offset` bytes, a multiple of 64, to every address in its descriptors. For
 * an image that does not lie at the address 0 that it was made for. */
void sb_relocate(void *program, uint32_t layers, uint64_t offset);

/* Start the program at an address of the accelerator's bus, a multiple of 64. 0 if it has begun,
 * -1 if the accelerator is busy. `interrupt` lets `irq` rise at the end, until the next start. */
int sb_start(uintptr_t base, uint64_t program, uint32_t layers, int interrupt);

/* Wait for the end of a run that has begun, and say how it ended. */
enum sb_status sb_wait(uintptr_t base);

/* Number of the layer that failed first; 0 if none did. */
uint32_t sb_failed_layer(uintptr_t base);

/* Counters of the last run. */
void sb_read_counters(uintptr_t base, struct sb_counters *counters);

/* What a status means, in English. */
const char *sb_meaning(enum sb_status status);
