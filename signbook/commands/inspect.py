"""``signbook inspect``: what a container holds, and where every byte goes."""

import math
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signbook.commands.options import File, Json
from signbook.commands.printing import print_remaining, print_table, print_totals, save_json

if TYPE_CHECKING:
    from vq.container import Geometry, LayerAccount

__all__ = ["inspect_file", "kernels_of", "run"]

_FP32_BYTES = 4
_COLUMNS = (
    "name", "method", "weights", "d", "k", "stream_bytes", "codebook_bytes", "scale_bytes",
    "padding_bytes", "bits_per_weight",
)  # fmt: skip


Kernels = Annotated[
    bool,
    typer.Option("--kernels", help="Show what multiplies by each layer here, packed on the CPU."),
]


def run(file: File, kernels: Kernels = False, json: Json = None) -> dict[str, Any]:
    """Show what a container holds and account for every byte."""
    from signbook.files import check_outputs

    check_outputs([("--json", json)], [file])
    document = inspect_file(file)
    columns: tuple[str, ...] = _COLUMNS
    if kernels:
        for layer, kernel in zip(document["layers"], kernels_of(file), strict=True):
            layer["kernel"] = kernel
        columns = (*_COLUMNS, "kernel")
    save_json(json, document)
    print_table(str(file), columns, document["layers"])
    print_remaining(document, "remains at run time")
    print_totals(document)
    return document


def inspect_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Account for every byte of a container: the ``signbook.inspect/1`` document.

    ``ratio_compressed_layers_fp32`` compares the compressed layers with their fp32 size,
    ``ratio_whole_model_fp32`` the whole file with all tensors of the model in fp32 (those of an
    integer graph, or that remain at run time, count as bytes of the file only), ``ratio_int8`` the
    compressed layers with the same layers as int8 in this container, scales and padding counted.
    ``runtime`` lists what remains at run time, if anything does; ``tokenizer`` says which one the
    file carries, if any.

    Raises
    ------
    ContainerError
        If the file is damaged.
    """
    from vq.container import account, open_container
    from vq.container.tokenizer import tokenizer_facts
    from vq.progress import bar

    with open_container(path) as container:
        steps = len(container.tensor_spans()) + len(container.layers)
        with bar("checking the file", steps) as advance:
            container.verify(complete=False, progress=advance)  # no weight is told
        geometries = [entry.geometry for entry in container.layers]
        own = [name for name in container.kept_names if container.is_own(name)]
        kept = sum(math.prod(container.kept(name).shape) for name in own)
        file_bytes = container.file_bytes
        remains = container.runtime_facts() | tokenizer_facts(container)
    accounts = account(geometries)
    weights = sum(g.weights for g in geometries)
    compressed_bytes = sum(a.total_bytes for a in accounts)
    int8_bytes = sum(a.total_bytes for a in account([_as_int8(g) for g in geometries]))
    return {
        "schema": "signbook.inspect/1",
        "layers": [_layer(a) for a in accounts],
        "bits_per_weight": 8 * compressed_bytes / weights,
        "file_bytes": file_bytes,
        "ratio_compressed_layers_fp32": _FP32_BYTES * weights / compressed_bytes,
        "ratio_whole_model_fp32": _FP32_BYTES * (weights + kept) / file_bytes,
        "ratio_int8": int8_bytes / compressed_bytes,
        **remains,
    }


def kernels_of(path: str | os.PathLike[str]) -> list[str]:
    """What multiplies by each layer of a container on this machine's CPU, if it stays packed.

    An instruction set, "portable", or "decoded": for every call, by torch.

    Raises
    ------
    ConfigError
        If SIGNBOOK_ISA names an instruction set that this processor lacks.
    """
    from vq.container import open_container
    from vq.inference.kernels import served_by
    from vq.inference.tiles import Tiling

    with open_container(path) as container:
        geometries = [entry.geometry for entry in container.layers]
    served = [served_by(Tiling.of(g)) for g in geometries]
    return [
        "decoded" if kernel == "torch" or math.prod(g.shape[2:]) > 1 else kernel
        for g, kernel in zip(geometries, served, strict=True)
    ]


def _as_int8(g: "Geometry") -> "Geometry":
    """Geometry of the same layer in the hardware baseline: int8, a scale per output."""
    from vq.container import Geometry

    return Geometry(g.name, g.op, g.shape, "int8", tile_outputs=g.tile_outputs, scales=g.O)


def _layer(a: "LayerAccount") -> dict[str, Any]:
    g = a.geometry
    return {
        "name": g.name,
        "method": g.method,
        "weights": g.weights,
        "d": g.d,
        "k": g.k,
        "stream_bytes": a.stream_bytes,
        "codebook_bytes": a.codebook_bytes,
        "scale_bytes": a.scale_bytes,
        "padding_bytes": a.padding_bytes,
        "bits_per_weight": a.bits_per_weight,
    }
