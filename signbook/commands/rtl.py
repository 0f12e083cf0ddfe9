"""``signbook rtl``: the hardware as Verilog."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signbook.commands.accelerator import read_settings
from signbook.commands.options import Accelerator, Json, Rom, Settings
from signbook.commands.printing import print_line, save_json
from vq.errors import ConfigError

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
            help="With --report: map to the standard cells of this Liberty file, not to an ECP5: "
            "areas by block, memories, the longest path. Repeatable: a library of several files.",
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
    from vq.progress import bar

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
        if not (report and isinstance(config, AcceleratorConfig)):
            print_line(str(written))
            return
        with bar("synthesis", None) as advance:
            found, text = _reported(config, library, lambda step: advance(note=step))
        save_json(json, found)
    print_line(str(written))
    typer.echo(text)


def _reported(
    config: "AcceleratorConfig", library: "Liberty | None", show: Callable[[str], None]
) -> tuple[dict[str, Any], str]:
    """Document and text of a report."""
    if library is not None:
        from rtl.build.cells import cells_report, cells_table

        cells = cells_report(config, library, progress=show)
        return cells, cells_table(cells)
    from rtl.build.report import CORE, area_report, area_table, clock_report, clock_table

    area = area_report(config, progress=show)
    clock = clock_report(config, core=CORE, progress=show)
    return area | clock, f"{area_table(area)}\n{clock_table(clock)}"
