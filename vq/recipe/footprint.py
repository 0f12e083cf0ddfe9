"""What this process holds in memory, and what it will hold once a model's weights are read."""

import bisect
import re
import resource
import sys
from itertools import chain
from pathlib import Path

from torch import Tensor, nn

__all__ = ["peak_bytes", "resident_bytes", "unread_bytes"]

_PROC = Path("/proc/self")


def resident_bytes() -> int:
    """Memory that the process holds now; its peak so far where the system does not say."""
    return _status("VmRSS")


def peak_bytes() -> int:
    """The most memory that the process has held so far."""
    return _status("VmHWM")


def unread_bytes(model: nn.Module) -> int:
    """Bytes of a model's weights that take no memory yet, but will once they are read.

    Those are weights on the meta device, and those in a file that is mapped into memory, of which
    some may have been read already.
    """
    starts, ends = _mapped_files()
    found: dict[tuple[int, int], int] = {}
    for tensor in chain(model.parameters(), model.buffers()):
        if tensor.is_meta:
            found[id(tensor), -1] = tensor.nbytes
        elif tensor.device.type == "cpu" and type(tensor) in (Tensor, nn.Parameter):
            place = tensor.data_ptr()
            at = bisect.bisect_right(starts, place) - 1
            if at >= 0 and place < ends[at]:
                found[place, tensor.nbytes] = tensor.nbytes
    return sum(found.values())


def _status(field: str) -> int:
    try:
        text = (_PROC / "status").read_text()
    except OSError:  # not Linux
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = re.search(rf"{field}:\s*(\d+) kB", text)
    return 1024 * int(found[1]) if found else 0


def _mapped_files() -> tuple[list[int], list[int]]:
    """Where files are mapped into memory: first addresses, rising, and those behind the last."""
    try:
        lines = (_PROC / "maps").read_text().splitlines()
    except OSError:
        return [], []
    starts, ends = [], []
    for line in lines:
        addresses, _, _, _, inode, *_ = line.split()
        if inode != "0":
            start, end = (int(address, 16) for address in addresses.split("-"))
            starts.append(start)
            ends.append(end)
    return starts, ends
