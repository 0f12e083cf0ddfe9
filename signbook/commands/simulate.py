"""``signbook simulate``: a container on the RTL."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from signbook.commands.measuring import Setup, print_measured, setup_of, shown
from signbook.commands.options import (
    MEMORY,
    METHODS,
    ROWS_HELP,
    Accelerator,
    File,
    Json,
    Memory,
    Methods,
    Rom,
    Settings,
)

__all__ = ["run", "stream"]


def run(
    file: File,
    accelerator: Accelerator = None,
    settings: Settings = None,
    rom: Rom = None,
    memory: Memory = MEMORY,
    rows: Annotated[int | None, typer.Option(help=ROWS_HELP)] = None,
    methods: Methods = METHODS,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Require that the cycle model counts the same, counter by counter."
        ),
    ] = False,
    waves: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.fst",
            help="Also write all signals of the file's own run in every cycle, as FST. The first "
            "time, a simulator that can is built; it takes several times as long.",
        ),
    ] = None,
    json: Json = None,
) -> dict[str, Any]:
    """Run a container on the RTL under Verilator and measure bytes, cycles and energy.

    The file's own bytes are the memory, and every output is compared with numpy's. The baselines
    are the same layers on the same hardware, memory and activations. The first run of a
    configuration builds its simulator, which takes a minute or two.

    For example: simulate model.vq.safetensors --memory ddr4-2400 --set clock_mhz=800 --methods
    int8,int4 --check
    """
    from signbook.files import check_outputs

    check_outputs([("--json", json), ("--waves", waves)], [file, accelerator, rom, memory])
    setup = setup_of(accelerator, settings, rom, memory, methods)
    document = stream(file, setup, rows=rows, check=check, waves=waves)
    print_measured(f"{file}, RTL", document, json)
    if check:
        runs = len(document["runs"])
        near = "" if document["memory"]["name"] == "ideal" else ", cycles within 1 %"
        typer.echo(f"cycle model: all counters agree in {runs} run{'s' * (runs > 1)}{near}")
    return document


def stream(
    path: str | os.PathLike[str],
    setup: Setup,
    *,
    rows: int | None = None,
    check: bool = False,
    waves: Path | None = None,
) -> dict[str, Any]:
    """Run :func:`hwsim.simulate` and show how far each run is.

    The first run of a configuration also generates and builds its simulator, for a minute
    or two; later ones find it in the cache.
    """
    from hwsim import simulate

    title, first = "simulating the RTL", "building, if this configuration is new: a minute or two"
    with shown(title, first, setup.methods) as show:
        return simulate(path, **vars(setup), rows=rows, progress=show, check=check, waves=waves)
