"""``signbook rtl``: the hardware as Verilog."""

from pathlib import Path
from typing import Annotated

import typer

from signbook.commands.accelerator import read_settings
from signbook.commands.options import Accelerator, Json, Rom, Settings
from signbook.commands.printing import print_line, save_json
from vq.errors import ConfigError

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
    json: Json = None,
) -> None:
    """Generate the accelerator as Verilog, with a manifest and a map of its registers.

    Beside them a C header, a bare-metal driver in C, and a core file for FuseSoC.
    """
    from rtl import AcceleratorConfig, StreamerConfig, top_of, write_verilog
    from rtl.build.emit import SUFFIXES
    from signbook.files import output_folder
    from vq.progress import bar

    if weights_only and report:
        raise ConfigError("--report must stand without --weights-only: it reports on accelerators")
    if json is not None and not report:
        raise ConfigError("--json must stand beside --report: it is where the report goes")
    kind = StreamerConfig if weights_only else AcceleratorConfig
    file = out / f"{top_of(kind())}.v"
    outputs = [("--out", file.with_suffix(end)) for end in SUFFIXES]
    with output_folder(out, [*outputs, ("--json", json)], [accelerator, rom]):
        values, _ = read_settings(accelerator, settings, rom)  # Verilog has no clock rate
        config = kind.from_mapping(values)
        with bar("generating Verilog", None):
            written = write_verilog(config, file)
        if not (report and isinstance(config, AcceleratorConfig)):
            print_line(str(written))
            return
        from rtl.build.report import CORE, area_report, area_table, clock_report, clock_table

        with bar("synthesis", None) as advance:

            def show(step: str) -> None:
                advance(note=step)

            area = area_report(config, progress=show)
            clock = clock_report(config, core=CORE, progress=show)
        save_json(json, area | clock)
    print_line(str(written))
    typer.echo(f"{area_table(area)}\n{clock_table(clock)}")
