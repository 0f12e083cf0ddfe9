"""``signbook rtl``: the hardware as Verilog."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signbook.commands.accelerator import read_settings
from signbook.commands.options import Accelerator, Json, Rom, Settings
from signbook.commands.printing import print_line, save_json
from vq.errors import ConfigError
from vq.progress import bar

if TYPE_CHECKING:
    from rtl import AcceleratorConfig
    from rtl.build.liberty import Liberty

__all__ = ["run"]


def run(
    out: Annotated[Path, typer.Option(help="Folder for the Verilog and its manifest.")],
    accelerator: Accelerator = None,
    settings: Settings = None,
    rom: Rom = None,
    weights_only: Annotated[
        bool, typer.Option("--weights-only", help="The streamer of decoded weights alone.")
    ] = False,
    report: Annotated[
        bool,
        typer.Option(
            "--report",
            help="Also synthesise it for an ECP5: area by block, what the decoder adds to an "
            "accelerator for int8, and then clocks. The first time areas take many minutes, clocks "
            "hours.",
        ),
    ] = False,
    liberty: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="With --report: also map to the standard cells of this Liberty file: areas by "
            "block, memories, the longest path. Repeatable: a library of several files.",
        ),
    ] = None,
    json: Json = None,
) -> None:
    """Generate the accelerator as Verilog, with a manifest and a map of its registers.

    Beside them a C header, a bare-metal driver in C, and a core file for FuseSoC.
    """
    from rtl import AcceleratorConfig, StreamerConfig, top_of, write_verilog
    from rtl.build.emit import SUFFIXES
    from rtl.build.liberty import read_liberty
    from signbook.files import output_folder

    if weights_only and report:
        raise ConfigError("--report must stand without --weights-only: it reports on accelerators")
    if liberty and not report:
        raise ConfigError("--liberty must stand beside --report: it is what the report maps to")
    if json is not None and not report:
        raise ConfigError("--json must stand beside --report: it is where the report goes")
    kind = StreamerConfig if weights_only else AcceleratorConfig
    file = out / f"{top_of(kind())}.v"
    outputs = [("--out", file.with_suffix(end)) for end in SUFFIXES]
    with output_folder(out, [*outputs, ("--json", json)], [accelerator, rom, *(liberty or ())]):
        values, _ = read_settings(accelerator, settings, rom)  # Verilog has no clock rate
        config = kind.from_mapping(values)
        library = read_liberty(liberty) if liberty else None
        with bar("generating Verilog", None):
            written = write_verilog(config, file)
        print_line(str(written))
        if report and isinstance(config, AcceleratorConfig):
            found: dict[str, Any] = {}
            for work, table in _parts(config, library):
                found |= _reported(work, table)
            save_json(json, found)


def _parts(
    config: "AcceleratorConfig", library: "Liberty | None"
) -> Iterator[tuple[Callable[..., dict[str, Any]], Callable[[dict[str, Any]], str]]]:
    """Work and table of each part of a report; what takes longest comes last."""
    from rtl.build.cells import cells_report, cells_table
    from rtl.build.report import CORE, area_report, area_table, clock_report, clock_table

    if library is not None:
        yield partial(cells_report, config, library), cells_table
    yield partial(area_report, config), area_table
    yield partial(clock_report, config, core=CORE), clock_table


def _reported(
    work: Callable[..., dict[str, Any]], table: Callable[[dict[str, Any]], str]
) -> dict[str, Any]:
    """A part of a report, printed as soon as it is known: the next may take hours."""
    with bar("synthesis", None) as advance:
        figures = work(progress=lambda step: advance(note=step))
    typer.echo(table(figures))
    return figures
