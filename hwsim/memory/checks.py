"""What contradicts itself in a device."""

from collections.abc import Mapping
from dataclasses import asdict
from fractions import Fraction

from hwsim.memory.device import Device, Rail, Structure, Timing

__all__ = ["problems_of"]

#: Each name is at least the sum of the others.
_AT_LEAST = (
    ("tRAS", ("tRCDRD",)),
    ("tRAS", ("tRCDWR",)),
    ("tRC", ("tRAS", "tRP")),
    ("tRPab", ("tRP",)),
    ("tCCD_L", ("tCCD_S",)),
    ("tRRD_L", ("tRRD_S",)),
    ("tWTR_L", ("tWTR_S",)),
    ("tFAW", ("tRRD_S",)),
    ("IDD3N", ("IDD2N",)),
    ("IDD4R", ("IDD3N",)),
    ("IDD4W", ("IDD3N",)),
    ("IDD5", ("IDD3N",)),
)
#: Numbers of clocks and parts are below that, and sums of some of them far below 2**63.
_NUMBER_LIMIT = 1 << 31
_BANKS_MAX = 1 << 16
_BYTES_MAX = 1 << 62
_MAY_BE_ZERO = (
    "tREFI", "tRTRS", "tPPD", "tDQSCK", "tDQSS", "split_command_bus", "tWTR_S", "tWTR_L",
)  # fmt: skip


def problems_of(device: Device) -> dict[str, str]:
    """What is wrong with a device.

    Returns
    -------
    dict
        Behind each name at fault, a requirement and what was given: "must be ..., not ...".
    """
    problems = _structure(device.structure)
    problems |= _timing(device.timing)
    for rail in device.rails:
        problems |= _rail(rail, device.timing)
    return problems


def _structure(structure: Structure) -> dict[str, str]:
    problems = {}
    for name, value in asdict(structure).items():
        if value < 1 or (name != "devices" and value & (value - 1)):
            kind = "at least 1" if name == "devices" else "a power of two"
            problems[name] = f"must be {kind}, not {value}"
        elif value >= _NUMBER_LIMIT:
            problems[name] = f"must be below 2**31, not {value}"
    if structure.column_bytes > structure.row_bytes:
        wanted = f"must hold a column of {structure.column_bytes}"
        problems.setdefault("row_bytes", f"{wanted}, not {structure.row_bytes}")
    banks = structure.channels * structure.ranks * structure.bank_groups * structure.banks_per_group
    size = banks * structure.rows * structure.row_bytes
    if banks > _BANKS_MAX:
        problems.setdefault("ranks", f"must make {_BANKS_MAX} banks in all at most, not {banks}")
    elif size > _BYTES_MAX:
        problems.setdefault("rows", f"must make 2**62 bytes in all at most, not {size}")
    return problems


def _timing(timing: Timing) -> dict[str, str]:
    problems = {}
    values = asdict(timing)
    for name, value in values.items():
        least = 0 if name in _MAY_BE_ZERO or name == "tCK_ps" else 1
        if value < least or (name == "tCK_ps" and not value):
            above = "above 0" if name == "tCK_ps" else f"at least {least}"
            problems[name] = f"must be {above}, not {value}"
        elif name != "tCK_ps" and value >= _NUMBER_LIMIT:
            problems[name] = f"must be below 2**31, not {value}"
    problems |= _sums(values, problems)
    overlap = timing.read_end - (timing.write_end - timing.burst)
    if timing.tRTW < overlap:
        text = f"must be at least {overlap}, so that data do not meet, not {timing.tRTW}"
        problems.setdefault("tRTW", text)
    busy = timing.tRTP + timing.tRPab + timing.tRFC + timing.tRCDRD
    if timing.tREFI and timing.tREFI <= busy:
        text = f"must be above tRTP + tRP + tRFC + tRCD ({busy}), not {timing.tREFI}"
        problems.setdefault("tREFI", text)
    return problems


def _rail(rail: Rail, timing: Timing) -> dict[str, str]:
    problems = {}
    currents = asdict(rail)
    for name, value in currents.items():
        if value < 0 or (name == "volts" and not value):
            above = "above 0" if name == "volts" else "at least 0"
            problems[name] = f"must be {above}, not {float(value):g}"
    problems |= _sums(currents, problems)
    if not problems:
        standby = rail.IDD3N * timing.tRAS + rail.IDD2N * (timing.tRC - timing.tRAS)
        if rail.IDD0 * timing.tRC < standby:
            least = float(standby / timing.tRC)
            text = f"must be at least {least:.4g}, the standby of its cycle, not"
            problems["IDD0"] = f"{text} {float(rail.IDD0):g}"
    return problems


def _sums(values: Mapping[str, int | Fraction], known: Mapping[str, str]) -> dict[str, str]:
    problems = {}
    for name, parts in _AT_LEAST:
        if name not in values or name in problems or known.keys() & {name, *parts}:
            continue
        least = sum(values[part] for part in parts)
        if values[name] < least:
            text = f"must be at least {' + '.join(parts)} ({float(least):g})"
            problems[name] = f"{text}, not {float(values[name]):g}"
    return problems
