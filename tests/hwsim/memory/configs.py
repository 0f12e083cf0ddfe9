"""Files in DRAMsim3's syntax, from the values of the configurations that were measured."""

DDR4_3200 = {
    "dram_structure": {
        "protocol": "DDR4", "bankgroups": 4, "banks_per_group": 4, "rows": 65536,
        "columns": 1024, "device_width": 8, "BL": 8,
    },
    "timing": {
        "tCK": 0.63, "AL": 0, "CL": 22, "CWL": 16, "tRCD": 22, "tRP": 22, "tRAS": 52,
        "tRFC": 560, "tREFI": 12480, "tRRD_S": 4, "tRRD_L": 8, "tWTR_S": 4, "tWTR_L": 12,
        "tFAW": 34, "tWR": 24, "tRTP": 12, "tCCD_S": 4, "tCCD_L": 8, "tRTRS": 1,
    },
    "power": {
        "VDD": 1.2, "IDD0": 57, "IDD2N": 37, "IDD3N": 52, "IDD4W": 150, "IDD4R": 168,
        "IDD5AB": 250,
    },
    "system": {
        "channel_size": 16384, "channels": 1, "bus_width": 64,
        "address_mapping": "rochrababgco", "queue_structure": "PER_BANK",
        "refresh_policy": "RANK_LEVEL_STAGGERED", "row_buf_policy": "OPEN_PAGE",
        "cmd_queue_size": 8, "trans_queue_size": 32,
    },
}  # fmt: skip
LPDDR4_2400 = {
    "dram_structure": {
        "protocol": "LPDDR4", "bankgroups": 2, "banks_per_group": 4, "rows": 65536,
        "columns": 1024, "device_width": 16, "BL": 16,
    },
    "timing": {
        "tCK": 0.83, "AL": 0, "CL": 17, "CWL": 14, "tRCD": 15, "tRP": 15, "tRAS": 32,
        "tRFC": 392, "tREFI": 8660, "tRRD_S": 8, "tRRD_L": 8, "tWTR_S": 8, "tWTR_L": 16,
        "tFAW": 32, "tWR": 30, "tRTP": 12, "tCCD_S": 4, "tCCD_L": 6, "tRTRS": 1, "tPPD": 2,
    },
    "power": {
        "VDD": 1.2, "IDD0": 80, "IDD2N": 34, "IDD3N": 47, "IDD4W": 228, "IDD4R": 243,
        "IDD5AB": 280,
    },
    "system": {**DDR4_3200["system"], "channel_size": 8192},
}  # fmt: skip
HBM2 = {
    "dram_structure": {
        "protocol": "HBM", "bankgroups": 4, "banks_per_group": 4, "rows": 32768,
        "columns": 64, "device_width": 128, "BL": 4, "num_dies": 4,
    },
    "timing": {
        "tCK": 1, "CL": 14, "CWL": 4, "tRCDRD": 14, "tRCDWR": 14, "tRP": 14, "tRAS": 34,
        "tRFC": 260, "tREFI": 3900, "tREFIb": 128, "tRPRE": 1, "tWPRE": 1, "tRRD_S": 4,
        "tRRD_L": 6, "tWTR_S": 6, "tWTR_L": 8, "tFAW": 30, "tWR": 16, "tCCD_S": 1,
        "tCCD_L": 2, "tXS": 268, "tCKE": 8, "tCKSRE": 10, "tXP": 8, "tRTP_L": 6, "tRTP_S": 4,
    },
    "power": {
        "VDD": 1.2, "IDD0": 65, "IDD2P": 28, "IDD2N": 40, "IDD3P": 40, "IDD3N": 55,
        "IDD4W": 500, "IDD4R": 390, "IDD5AB": 250, "IDD6x": 31,
    },
    "system": {
        "channel_size": 1024, "channels": 8, "bus_width": 128,
        "address_mapping": "rorabgbachco", "queue_structure": "PER_BANK",
        "row_buf_policy": "OPEN_PAGE", "cmd_queue_size": 8, "trans_queue_size": 32,
        "unified_queue": "False",
    },
    "other": {"epoch_period": 1000000, "output_level": 1},
}  # fmt: skip


def ini(sections: dict) -> str:
    """Their text."""
    lines = []
    for section, entries in sections.items():
        lines += [f"[{section}]", *(f"{key} = {value}" for key, value in entries.items()), ""]
    return "\n".join(lines)
