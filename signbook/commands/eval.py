"""``signbook eval``: a model's metrics, or those of a file beside the model it was made from."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signbook.commands.options import DEVICE, Activations, Book, Device, Json, Model, Packed
from signbook.commands.printing import print_rows, print_table, save_json, text, warnings_in_short

if TYPE_CHECKING:
    from signbook.evaluation import Evaluation

__all__ = ["run"]


def run(
    model: Model,
    data: Annotated[str, typer.Option(help="py:package.module:factory, which gives a task.")],
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Uncompressed weights of the model.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A *.vq.safetensors file to evaluate.")
    ] = None,
    reference: Annotated[
        bool, typer.Option("--reference", help="Compare FILE with the uncompressed model.")
    ] = False,
    integer: Annotated[
        bool, typer.Option("--integer", help="Run FILE's integer graph, as the hardware does.")
    ] = False,
    activation_bits: Annotated[
        int | None,
        typer.Option(help="Round the inputs of the linear layers (FILE's, if given), 2 to 8 bits."),
    ] = None,
    packed: Packed = False,
    activations: Activations = None,
    rom: Book = None,
    device: Device = DEVICE,
    json: Json = None,
) -> dict[str, Any]:
    """Measure a model, or a compressed file beside the model it was made from.

    For example: eval py:signbook.zoo.resnet:resnet20 --weights resnet20.th --file
    r20.vq.safetensors --data py:signbook.data:cifar10_exact
    """
    from signbook.evaluation import evaluate_named
    from signbook.files import check_outputs

    check_outputs([("--json", json)], [model, data, weights, file, rom])

    with warnings_in_short():
        found = evaluate_named(
            model,
            data,
            weights=weights,
            file=file,
            reference=reference,
            integer=integer,
            activation_bits=activation_bits,
            packed=packed,
            activations=activations,
            rom=rom,
            device=device,
        )
    document = found.document(with_reference=reference)
    save_json(json, document)
    _print(f"{file or model} on {data}", found)
    return document


def _print(title: str, found: "Evaluation") -> None:
    beside = found.reference
    rows = [
        {"metric": name, "value": f"{value:.5g}"}
        | ({"reference": f"{beside.get(name, ''):.5}"} if beside else {})
        for name, value in found.metrics.items()
    ]
    print_table(title, list(rows[0]), rows)
    if found.protocol is not None:
        print_rows("protocol", [(key, text(value)) for key, value in found.protocol.items()])
