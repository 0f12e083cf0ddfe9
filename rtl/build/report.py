"""Synthesis report: area of an accelerator by block, its clock, and what its decoder adds."""

import re
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from amaranth import Module, Signal, Value
from amaranth.back import verilog
from amaranth.lib.wiring import In

from rtl.accelerator_config import AcceleratorConfig
from rtl.build.emit import emit_verilog, top_of
from rtl.build.synthesis import DEVICE, Cells, cells_of, clock_of, tool_versions
from rtl.config import StreamerConfig
from rtl.decode.weights import WeightReader

__all__ = [
    "BLOCKS",
    "CORE",
    "GROUP_SCALES",
    "area_report",
    "area_table",
    "block_of",
    "clock_report",
    "clock_table",
    "decoder_area",
    "pieces",
    "registered_decoder",
]

#: The block that neither codebooks nor int8 need.
GROUP_SCALES = "group scales"
#: Blocks by the modules that make them up; everything else is ``rest``. Each module is
#: synthesised by itself: nothing is optimised across its border.
BLOCKS = {
    "decoder": ("weights",),
    "checks": ("fetcher",),
    "tile": ("engine.tile",),
    "array": ("engine.array",),
    "accumulators": ("engine.accumulators",),
    GROUP_SCALES: ("engine.rescaler",),
    "requantiser": ("engine.requantizer",),
    "walk": ("engine.walk", "engine.reader"),
    "buffers": ("loader", "outputs", "store"),
    "bus": ("reads", "writes"),
    "registers": ("registers",),
}

#: The accelerator that is placed as a whole: its array is the largest, of powers of two, that fits.
CORE = AcceleratorConfig(
    bus_bits=64, rows=8, columns=8, d_max=8, input_bytes=16384, output_bytes=16384
)

Progress = Callable[[str], None]


def area_report(config: AcceleratorConfig, *, progress: Progress | None = None) -> dict[str, Any]:
    """Count the cells of an accelerator on an ECP5, and those of one for int8 alone.

    Takes many minutes the first time; afterwards only what changed is done again.

    Parameters
    ----------
    config : AcceleratorConfig
    progress : callable, optional
        Called with a line of text before each step.

    Returns
    -------
    dict
        ``blocks`` and ``total`` are the cells of the accelerator, ``int8`` the same of one with
        ``int8_only`` and without group scales. ``decoder_share`` is what the first has more, over
        the second: places of look-up tables, the group scales again left out, which codebooks do
        not need; ``group_scales_share`` is theirs.

    Raises
    ------
    SimulationError
        If a tool is missing or fails.
    OutputError
        If the cache folder cannot be written.
    """
    say = progress or (lambda _: None)
    tools = tool_versions()
    areas: dict[str, dict[str, Cells]] = {}
    for name, one in (("full", config), ("int8", replace(config, int8_only=1, codebook_rom=""))):
        source = emit_verilog(one)
        areas[name] = {}
        for module, (text, top) in pieces(source, top_of(one)).items():
            say(f"area of {module} ({name})")
            where = block_of(module)
            areas[name][where] = areas[name].get(where, Cells()) + cells_of(text, top)
    del areas["int8"][GROUP_SCALES]  # built in, but without work
    totals = {name: sum(blocks.values(), Cells()) for name, blocks in areas.items()}
    int8, scales = totals["int8"].luts, areas["full"][GROUP_SCALES].luts
    return {
        "schema": "signbook.synthesis/1",
        "config": config.to_mapping(),
        "tools": tools,
        "device": " ".join(DEVICE),
        "blocks": {name: _facts(cells) for name, cells in areas["full"].items()},
        "total": _facts(totals["full"]),
        "int8": {
            "blocks": {name: _facts(cells) for name, cells in areas["int8"].items()},
            "total": _facts(totals["int8"]),
        },
        "decoder_share": (totals["full"].luts - scales) / int8 - 1,
        "group_scales_share": scales / int8,
    }


def decoder_area(config: AcceleratorConfig) -> dict[str, int]:
    """Count the cells of the decoder alone, as :func:`area_report` does among all blocks.

    A codebook in ROM is logic; in RAM, it is in block RAMs.

    Raises
    ------
    SimulationError, OutputError
        As :func:`area_report`.
    """
    (module,) = BLOCKS["decoder"]
    return _facts(cells_of(*pieces(emit_verilog(config), top_of(config))[module]))


def clock_report(
    config: AcceleratorConfig,
    *,
    core: AcceleratorConfig | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Place and route a decoder by itself, between registers, and whole accelerators.

    Parameters
    ----------
    config : AcceleratorConfig
        Its decoder is placed.
    core : AcceleratorConfig, optional
        A whole accelerator to place as well, with and without decoder: one that fits the device.
        That can take hours.
    progress : callable, optional
        Called with a line of text before each step.

    Returns
    -------
    dict
        ``core`` as a mapping or None, and ``clock_mhz`` of ``decoder`` and, if ``core`` was given,
        of ``core`` and ``core_int8``.

    Raises
    ------
    SimulationError, OutputError
        As :func:`area_report`.
    """
    say = progress or (lambda _: None)
    say("clock of the decoder")
    clocks = {"decoder": clock_of(*registered_decoder(config.streamer))}
    if core is not None:
        for name, one in (("core", core), ("core_int8", replace(core, int8_only=1))):
            say(f"clock of the whole accelerator ({name})")
            clocks[name] = clock_of(emit_verilog(one), top_of(one))
    return {"core": core and core.to_mapping(), "clock_mhz": clocks}


def area_table(report: dict[str, Any]) -> str:
    """Text of an area report: one line per block, then what the decoder adds."""
    columns = ("luts", "lut4", "carry", "ram16", "ff", "bram")
    lines = [f"{'block':<14}" + "".join(f"{column:>9}" for column in columns)]
    rows = [*report["blocks"].items(), ("total", report["total"])]
    rows.append(("int8 alone", report["int8"]["total"]))
    for name, cells in rows:
        lines.append(f"{name:<14}" + "".join(f"{cells[column]:>9}" for column in columns))
    for name in ("decoder", "group scales"):
        share = report[f"{name.replace(' ', '_')}_share"]
        lines.append(f"{name} add {share:.1%} to the look-up tables of int8 alone")
    return "\n".join(lines)


def clock_table(report: dict[str, Any]) -> str:
    """Text of a clock report: one line per design."""
    return "\n".join(f"clock of {name}: {mhz:.1f} MHz" for name, mhz in report["clock_mhz"].items())


def _facts(cells: Cells) -> dict[str, int]:
    return {"luts": cells.luts, **asdict(cells)}


def block_of(module: str) -> str:
    """Name of the block that a module of :data:`BLOCKS`, or the rest, belongs to."""
    return next((block for block, modules in BLOCKS.items() if module in modules), "rest")


def pieces(source: str, top: str) -> dict[str, tuple[str, str]]:
    """Each module of :data:`BLOCKS` with all below it, and the top without them: text and name."""
    modules = {
        match[1].lstrip("\\"): match[0]
        for match in re.finditer(r"^module (\S+?)\s*\(.*?^endmodule$", source, re.M | re.S)
    }
    found = {}
    for name in (name for names in BLOCKS.values() for name in names):
        root = f"{top}.{name}"
        inside = [module for module in modules if module.startswith(f"{root}.")]
        found[name] = ("\n".join([modules[root], *map(modules.pop, inside)]), root)
        modules[root] = _hollow(modules[root])
    return {**found, "rest": ("\n".join(modules.values()), top)}


def _hollow(module: str) -> str:
    """A module without its inside."""
    header = module[: module.index(";") + 1]
    ports = re.findall(r"^  (?:input|output) .*?;$", module, re.M)
    return "\n".join(["(* blackbox *)", header, *ports, "endmodule"])


def registered_decoder(config: StreamerConfig) -> tuple[str, str]:
    """Verilog and name of a decoder with a register at every port: only its own paths count."""
    inner = WeightReader(config)
    m = Module()
    m.submodules.weights = inner
    ports = {}
    for path, member, value in inner.signature.flatten(inner):
        name = "_".join(str(part) for part in path)
        port, inside = Signal(Value.cast(value).shape(), name=name), Value.cast(value)
        ports[name] = (port, None)
        if member.flow == In:
            m.d.sync += inside.eq(port)
        else:
            m.d.sync += port.eq(inside)
    text = verilog.convert(
        m, name="registered_decoder", ports=ports, emit_src=False, strip_internal_attrs=True
    )
    return text, "registered_decoder"
