"""``signbook estimate``: what ``simulate`` would measure, by the cycle model."""

from typing import Annotated, Any

import typer

from signbook.commands.measuring import print_measured, setup_of, shown
from signbook.commands.options import (
    MEMORY,
    METHODS,
    ROWS_HELP,
    Accelerator,
    Json,
    Memory,
    Methods,
    Rom,
    Settings,
)
from vq.errors import ConfigError

__all__ = ["run"]

_FILE = ".safetensors"


def run(
    target: Annotated[
        str,
        typer.Argument(
            help="A *.vq.safetensors file, or the text of a workload: deit-tiny, "
            "llama-2-7b:m=1,context=512, minilm-l6:tokens=128, resnet-20, a SCALE-Sim topology.csv."
        ),
    ],
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Of a workload: ssvq:d=8,k=16, vq:d=4,k=256, int4, ... for all its layers, or a "
            "YAML file of patterns. With one, a file stands for its shapes alone.",
        ),
    ] = None,
    accelerator: Accelerator = None,
    settings: Settings = None,
    rom: Rom = None,
    memory: Memory = MEMORY,
    rows: Annotated[
        int | None,
        typer.Option(help=ROWS_HELP + " The text of a workload says its own rows."),
    ] = None,
    methods: Methods = METHODS,
    json: Json = None,
) -> dict[str, Any]:
    """Predict what simulate would measure, in seconds and for networks of any size.

    The cycle model steps the same control without data. With an ideal memory every counter equals
    the RTL's. Of a workload, what the accelerator does not run (attention, norms, activations) is
    counted apart, and once more as part of the whole.

    For example: estimate minilm-l6:tokens=1 --recipe ssvq:d=8,k=16 --memory lpddr4-3200 --methods
    int8,int4
    """
    from hwsim import estimate, estimate_workload
    from hwsim.workloads import recipe_of, workload
    from signbook.files import check_outputs, refuse_inputs

    check_outputs([("--json", json)], [target, recipe, accelerator, rom, memory])
    if recipe is not None:
        refuse_inputs([("--json", json)], recipe_of(recipe).files)
    setup = setup_of(accelerator, settings, rom, memory, methods)
    if not target.endswith(_FILE):
        _check(target, recipe, rows)
    with shown("predicting", "laying out", setup.methods) as show:
        common: dict[str, Any] = {**vars(setup), "progress": show}
        if recipe is None:
            document = estimate(target, rows=rows, **common)
        else:
            shapes = target if rows is None else f"{target}:rows={rows}"
            document = estimate_workload(workload(shapes), recipe, **common)
    print_measured(f"{target}, cycle model", document, json)
    return document


def _check(target: str, recipe: str | None, rows: int | None) -> None:
    """A workload has no formats of its own, and rows of its own."""
    if recipe is None:
        raise ConfigError(
            f"workload {target!r} must have a recipe, such as --recipe ssvq:d=8,k=16 or a YAML "
            "file, and none was given"
        )
    if rows is not None:
        raise ConfigError(
            f"--rows must be left out beside {target!r}: a workload says its own rows, such as "
            "llama-2-7b:m=4 or minilm-l6:tokens=16"
        )
