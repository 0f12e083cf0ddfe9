"""``signbook integer``: give a container the integer graph that the hardware runs."""

import math
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signbook.commands.defaults import Defaults
from signbook.commands.options import Book, Json, Model
from signbook.commands.printing import print_table, save_json
from vq.errors import ConfigError

if TYPE_CHECKING:
    from vq.integer import IntegerModel

__all__ = ["run"]


def run(
    model: Model,
    file: Annotated[Path, typer.Option(metavar="FILE", help="A *.vq.safetensors file of it.")],
    data: Annotated[str, typer.Option(help="Calibration data: py:package.module:factory.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write here and leave FILE as it is.")
    ] = None,
    choice: Annotated[
        str, typer.Option(help="How activation scales are chosen: mse, percentile or max.")
    ] = Defaults("vq.integer.build", "add_integer").choice,
    batches: Annotated[int, typer.Option(min=1, help="Calibration batches to use.")] = 4,
    rom: Book = None,
    json: Json = None,
) -> dict[str, Any]:
    """Store a compressed model's integer graph in its file: int8 activations, int32 sums."""
    from signbook.files import check_outputs
    from signbook.naming import resolve_data, resolve_model
    from vq.calibration.batches import each
    from vq.container.rom import roms_of
    from vq.integer import add_integer

    if batches < 1:
        raise ConfigError(f"batches must be at least 1, not {batches}")
    own = ("--file", file) if out is None else ("--out", out)
    check_outputs([own, ("--json", json)], [model, data, rom, None if out is None else file])
    architecture = resolve_model(model, pretrained=False)
    inputs = list(islice(each(resolve_data(data).batches), batches))
    integer = add_integer(file, architecture, inputs, out=out, choice=choice, rom=roms_of(rom))
    document = _document(out or file, integer)
    save_json(json, document)
    rows = [{**row, "step": f"{row['step']:.4g}"} for row in document["nodes"]]
    print_table(str(out or file), ("name", "op", "shape", "relu", "macs", "step"), rows)
    return document


def _document(file: Path, integer: "IntegerModel") -> dict[str, Any]:
    graph = integer.graph
    nodes = [
        {
            "name": node.name,
            "op": node.op,
            "inputs": list(node.inputs),
            "shape": list(node.shape),
            "relu": node.relu,
            "macs": _macs(integer, place),
            "step": float(integer.scales[place]),
        }
        for place, node in enumerate(graph.nodes)
    ]
    return {
        "schema": "signbook.integer/1",
        "file": str(file),
        "choice": graph.choice,
        "calibration": graph.calibration,
        "macs": sum(_macs(integer, place) for place in range(len(graph.nodes))),
        "nodes": nodes,
    }


def _macs(integer: "IntegerModel", place: int) -> int:
    """Multiplications of a node for one input, those with padding counted."""
    node = integer.graph.nodes[place]
    if not node.layer:
        return 0
    weight = integer.parameters[node.name].weight
    per_output: int = weight[0].size
    return per_output * math.prod(node.shape)
