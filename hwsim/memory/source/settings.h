/* What a memory is made of, under the names of hwsim/memory/device.py, in clocks and bytes.
 *
 * Python fills it in by these names. All are small enough that sums of a few do not overflow.
 */
#include <stdint.h>

typedef int32_t num;
typedef int64_t wide;

typedef struct {
    wide channels, ranks, bank_groups, banks_per_group, column_bytes;
    wide burst, CL, CWL, tRCDRD, tRCDWR, tRP, tRPab, tRAS, tRC, tRTP, tWR, tCCD_S, tCCD_L;
    wide tRRD_S, tRRD_L, tFAW, tWTR_S, tWTR_L, tRTW, tRFC, tREFI, tRTRS, tPPD, tDQSCK, tDQSS;
    wide activate_clocks, column_clocks, precharge_clocks, split_command_bus;
    wide window_columns, bank_queue_columns, hit_limit, write_columns, write_high, write_low;
    wide rotating;
    /* A clock, a cycle of the accelerator and the controller's latency, in common parts. */
    wide clock_parts, cycle_parts, latency_parts;
    /* Of the number of a column: the lowest bit of each field, and how many values it has, less 1. */
    wide row_at, rank_at, group_at, bank_at, channel_at;
    wide row_mask, rank_mask, group_mask, bank_mask, channel_mask;
} Settings;

/* Later than all that happens. */
#define NEVER ((wide)1 << 62)

static wide earlier(wide a, wide b) { return a < b ? a : b; }
static wide later(wide a, wide b) { return a > b ? a : b; }
