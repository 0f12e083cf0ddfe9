"""Devices from files in the syntax of DRAMsim3's configurations."""

import difflib
import re
from fractions import Fraction
from pathlib import Path

from hwsim.memory.checks import problems_of
from hwsim.memory.device import Control, Device, Rail, Structure, Timing
from hwsim.memory.mapping import FIELDS
from vq.errors import ConfigError, bulleted
from vq.text.files import read_text

__all__ = ["device_of_text", "read_ini"]

_SIZE_LIMIT_BYTES = 1 << 20
_INTEGER = re.compile(r"[0-9]{1,15}")
_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_HBM = ("HBM", "HBM2")
_PROTOCOLS = ("DDR3", "DDR4", "LPDDR", "LPDDR3", "LPDDR4", *_HBM)
#: Keys of the device files and of the system files of DRAMsim2, which have no sections.
_DRAMSIM2 = (
    "NUM_BANKS", "NUM_ROWS", "NUM_COLS", "REFRESH_PERIOD", "NUM_CHANS", "JEDEC_DATA_BUS_BITS",
    "TRANS_QUEUE_DEPTH", "CMD_QUEUE_DEPTH", "ADDRESS_MAPPING_SCHEME",
)  # fmt: skip
_BY_DIRECTION = ("tRCDRD", "tRCDWR")
#: Keys behind the names of :func:`problems_of` that are no keys themselves.
_KEYS = {
    "tRCDRD": "tRCD", "tRCDWR": "tRCD", "tCK_ps": "tCK", "tRPab": "tRP", "tRC": "tRAS",
    "volts": "VDD", "IDD5": "IDD5AB", "bank_groups": "bankgroups", "row_bytes": "columns",
    "column_bytes": "BL", "ranks": "channel_size", "burst": "BL", "devices": "device_width",
}  # fmt: skip


class _File:
    """Keys of a file with their lines, and what is wrong with it."""

    def __init__(self, text: str) -> None:
        self.problems: list[str] = []
        self._entries: dict[tuple[str, str], tuple[int, str]] = {}
        section = ""
        for number, raw in enumerate(text.splitlines(), 1):
            line = re.split(r"[;#]", raw, maxsplit=1)[0].strip()
            if not line:
                continue
            if line.startswith("["):
                section = line.strip("[]").strip().lower()
                if not line.endswith("]") or not section:
                    self.problems.append(
                        f"line {number}: section must be [NAME], not {line[:40]!r}"
                    )
                continue
            key, separator, value = (part.strip() for part in line.partition("="))
            if not separator or not key:
                self.problems.append(f"line {number}: must be KEY = VALUE, not {line[:40]!r}")
            elif (section, key.lower()) in self._entries:
                first = self._entries[section, key.lower()][0]
                self.problems.append(
                    f"line {number}: {key} must be given once, not as in line {first}"
                )
            else:
                self._entries[section, key.lower()] = (number, value)

    def blame(self, key: str, problem: str) -> None:
        """Note a problem with a key, and its line if it has one."""
        for (_, known), (number, _) in self._entries.items():
            if known == key.lower():
                key = f"line {number}: {key}"
                break
        if f"{key} {problem}" not in self.problems:
            self.problems.append(f"{key} {problem}")

    def has(self, section: str, key: str) -> bool:
        """Whether a key is there."""
        return (section, key.lower()) in self._entries

    def word(self, section: str, key: str, default: str | None = None) -> str:
        """Text of a key."""
        _, value = self._entries.get((section, key.lower()), (0, default))
        if value is None:
            keys = [known for inside, known in self._entries if inside == section]
            near = difflib.get_close_matches(key.lower(), keys, n=1, cutoff=0.7)
            hint = ""
            if near:
                line, _ = self._entries[section, near[0]]
                hint = f"; line {line} has a key like it"
            self.problems.append(f"{key} must be given in [{section}]{hint}")
            return ""
        return value

    def one_of(self, section: str, key: str, known: tuple[str, ...], default: str) -> str:
        """Text of a key that only has few values."""
        value = self.word(section, key, default)
        if value.lower() not in (one.lower() for one in known):
            near = difflib.get_close_matches(value, known, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            self.blame(key, f"must be {' or '.join(known)}, not {value!r}{hint}")
        return value

    def number(self, section: str, key: str, default: str | None = None) -> Fraction:
        """Number of a key; 1 if it is no number, which is noted."""
        value = self.word(section, key, default)
        if value and not _NUMBER.fullmatch(value):
            self.blame(key, f"must be a number, not {value!r}")
        return Fraction(value) if _NUMBER.fullmatch(value) else Fraction(1)

    def integer(self, section: str, key: str, default: str | None = None) -> int:
        """Whole number of a key; 1 if it is none, which is noted."""
        value = self.word(section, key, default)
        if value and not _INTEGER.fullmatch(value):
            self.blame(key, f"must be a whole number, not {value!r}")
        return int(value) if _INTEGER.fullmatch(value) else 1


def read_ini(path: str | Path) -> Device:
    """Read a device from a file in the syntax of DRAMsim3.

    The controller is as the file describes it: queues by bank whose banks take turns, and writes
    that go when the buffer is full. Keys for which there is nothing here (power-down, thermal,
    output) are passed over.

    Parameters
    ----------
    path : path

    Raises
    ------
    ConfigError
        If the file cannot be read, is no such file, or its values are missing or contradict each
        other. All problems are in one message, with line and key.
    """
    text = read_text(path, f"memory file {str(path)!r}", limit_bytes=_SIZE_LIMIT_BYTES)
    return device_of_text(text, Path(path).stem, str(path))


def device_of_text(text: str, name: str, path: str) -> Device:
    """Read a device from the text of such a file; ``path`` is what errors call it."""
    file = _File(text)
    if foreign := next((key for key in _DRAMSIM2 if file.has("", key)), None):
        raise ConfigError(
            f"memory file {path!r}: must be in the syntax of DRAMsim3, not of DRAMsim2, whose key "
            f"{foreign} it has; take the file of such a device from DRAMsim3's configs folder"
        )
    protocol = file.one_of("dram_structure", "protocol", _PROTOCOLS, "DDR3").upper()
    # Keys of one that is not known here would be missing for no reason.
    if protocol not in _PROTOCOLS:
        raise ConfigError(bulleted(f"memory file {path!r}", file.problems))
    device = _device(file, name, protocol)
    if not file.problems:
        for wrong, problem in problems_of(device).items():
            file.blame(_key(wrong, device), _keys_in(problem, device))
    if file.problems:
        raise ConfigError(bulleted(f"memory file {path!r}", file.problems))
    return device


def _key(name: str, device: Device) -> str:
    """The key behind a name of ours; HBM has one for each direction."""
    if name in _BY_DIRECTION and device.timing.split_command_bus:
        return name
    return _KEYS.get(name, name)


def _keys_in(problem: str, device: Device) -> str:
    for name in _BY_DIRECTION:
        problem = problem.replace(name, _key(name, device))
    return problem


def _device(file: _File, name: str, protocol: str) -> Device:
    hbm = protocol in _HBM
    structure, burst = _structure(file, hbm)
    return Device(
        name=name,
        structure=structure,
        timing=_timing(file, burst, structure.bank_groups, hbm, protocol == "LPDDR4"),
        rails=(_rail(file),),
        mapping=_mapping(file),
        control=_control(file),
    )


def _structure(file: _File, hbm: bool) -> tuple[Structure, int]:
    groups = file.integer("dram_structure", "bankgroups")
    banks = file.integer("dram_structure", "banks_per_group")
    rows = file.integer("dram_structure", "rows")
    width = max(1, file.integer("dram_structure", "device_width"))
    # A column of HBM is two transfers wide.
    columns = file.integer("dram_structure", "columns") * (2 if hbm else 1)
    length = file.integer("dram_structure", "BL")
    bus_bits = file.integer("system", "bus_width", "64")
    megabytes = file.integer("system", "channel_size", "1024")
    if bus_bits % width or bus_bits < width:
        file.blame("bus_width", f"must be a multiple of device_width ({width}), not {bus_bits}")
    if length % 2:
        file.blame("BL", f"must be even, not {length}")
    row_bytes = columns * bus_bits // 8
    rank_bytes = rows * row_bytes * groups * banks
    if not rank_bytes or rank_bytes & (rank_bytes - 1):
        rank_bytes = megabytes << 20  # what is wrong with it is said of its parts
    structure = Structure(
        channels=file.integer("system", "channels", "1"),
        ranks=max(1, (megabytes << 20) // max(1, rank_bytes)),
        bank_groups=groups,
        banks_per_group=banks,
        rows=rows,
        row_bytes=row_bytes,
        column_bytes=bus_bits // 8 * length,
        devices=max(1, bus_bits // width),
    )
    return structure, length // 2


def _timing(file: _File, burst: int, groups: int, hbm: bool, lpddr4: bool) -> Timing:
    def clocks(key: str, default: str | None = None) -> int:
        return file.integer("timing", key, default)

    added, burst_gap = clocks("AL", "0"), clocks("tRTRS", "2")
    read, write = added + clocks("CL"), added + clocks("CWL")
    to_read = clocks("tRCDRD" if hbm else "tRCD") - added
    active, precharge = clocks("tRAS"), clocks("tRP")
    # DRAMsim3's own files for DDR3 and LPDDR3 say REFI, and so get its default for tREFI.
    interval = "tREFI" if file.has("timing", "tREFI") or not file.has("timing", "REFI") else "REFI"
    short = {name: clocks(f"{name}_S") for name in ("tCCD", "tRRD", "tWTR")}
    # Without bank groups, the distances within one are those between two.
    long = short if groups == 1 else {name: clocks(f"{name}_L") for name in short}
    return Timing(
        tCK_ps=file.number("timing", "tCK") * 1000,
        burst=burst,
        CL=read,
        CWL=write,
        tRCDRD=to_read,
        tRCDWR=clocks("tRCDWR") - added if hbm else to_read,
        tRP=precharge,
        tRPab=precharge,
        tRAS=active,
        tRC=active + precharge,
        tRTP=added + clocks("tRTP_L" if hbm else "tRTP"),
        tWR=clocks("tWR"),
        tCCD_S=short["tCCD"],
        tCCD_L=long["tCCD"],
        tRRD_S=short["tRRD"],
        tRRD_L=long["tRRD"],
        tFAW=clocks("tFAW"),
        tWTR_S=short["tWTR"],
        tWTR_L=long["tWTR"],
        tRTW=max(1, read + burst - write + burst_gap),
        tRFC=clocks("tRFC"),
        tREFI=clocks(interval),
        tRTRS=burst_gap,
        tPPD=clocks("tPPD", "0") if lpddr4 else 0,
        split_command_bus=int(hbm),
    )


def _rail(file: _File) -> Rail:
    def current(key: str) -> Fraction:
        return file.number("power", key)

    return Rail(
        volts=current("VDD"),
        IDD0=current("IDD0"),
        IDD2N=current("IDD2N"),
        IDD3N=current("IDD3N"),
        IDD4R=current("IDD4R"),
        IDD4W=current("IDD4W"),
        IDD5=current("IDD5AB"),
    )


def _mapping(file: _File) -> str:
    order = file.word("system", "address_mapping", "chrobabgraco").lower()
    if sorted(order[i : i + 2] for i in range(0, len(order), 2)) != sorted(FIELDS):
        fields = ", ".join(FIELDS)
        file.blame("address_mapping", f"must hold each of {fields} once, not {order!r}")
    return order


def _control(file: _File) -> Control:
    file.one_of("system", "queue_structure", ("PER_BANK",), "PER_BANK")
    file.one_of("system", "row_buf_policy", ("OPEN_PAGE",), "OPEN_PAGE")
    file.one_of("system", "refresh_policy", ("RANK_LEVEL_STAGGERED",), "RANK_LEVEL_STAGGERED")
    file.one_of("system", "unified_queue", ("false", "no", "0"), "false")
    queue = file.integer("system", "trans_queue_size", "32")
    banks = file.integer("system", "cmd_queue_size", "16")
    for key, value in (("trans_queue_size", queue), ("cmd_queue_size", banks)):
        if not value:
            file.blame(key, "must be at least 1, not 0")
    return Control(
        window_columns=max(1, queue),
        bank_queue_columns=max(1, banks),
        write_columns=max(1, queue),
        write_high=max(1, queue),
        write_low=0,
        arbitration="rotating",
    )
