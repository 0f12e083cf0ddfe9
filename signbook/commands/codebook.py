"""``signbook codebook``: fixed codebooks for many networks."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signbook.commands.defaults import Defaults
from signbook.commands.options import MODEL_HELP, SEED, Json, Seed
from signbook.commands.printing import print_table, print_totals, save_json, warnings_in_short
from vq.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from vq import SSVQ, VQ
    from vq.universal.door import UniversalCodebook

__all__ = ["build", "run"]

_DEFAULTS = Defaults("vq.universal.door", "universal_codebook")
_COLUMNS = (
    "name", "layers", "left_out", "sub_vectors", "drawn", "bits_per_weight",
    "bits_per_weight_shared", "bits_per_weight_alone", "padding_bits_per_weight",
)  # fmt: skip


def run() -> None:
    """Make a fixed codebook that many networks share."""


def build(
    models: Annotated[list[str], typer.Argument(help=f"{MODEL_HELP} One or more.")],
    out: Annotated[
        Path, typer.Option(metavar="FILE.npy", help="Array of numpy to write, \\[k, d] int8.")
    ],
    weights: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Weights; once for each model, in their order."),
    ] = None,
    recipe: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Draw from the layers that it makes ssvq or vq, in their d and k; once for all "
            "models, or once for each.",
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(help="vq, signed codewords (the default), or ssvq, magnitudes."),
    ] = None,
    d: Annotated[int | None, typer.Option(help="Weights of a codeword.")] = None,
    k: Annotated[int | None, typer.Option(help="Codewords.")] = None,
    by: Annotated[
        str,
        typer.Option(
            help="kde samples the density of the sub-vectors, kmeans clusters them, subsample "
            "takes some."
        ),
    ] = _DEFAULTS.by,
    samples: Annotated[
        int, typer.Option(min=1, help="Sub-vectors to draw from each model.")
    ] = _DEFAULTS.samples,
    bandwidth: Annotated[
        float | None,
        typer.Option(help="Of the density, in root mean squares of a layer; Scott's without it."),
    ] = None,
    seed: Seed = SEED,
    json: Json = None,
) -> dict[str, Any]:
    """Make one codebook from equally many sub-vectors of every model, for recipes to name."""
    import numpy as np

    import vq
    from signbook.files import check_outputs, refuse_inputs
    from vq.container import atomic_file
    from vq.progress import track

    files, recipes = weights or [], recipe or []
    outputs = [("--out", out), ("--json", json)]
    check_outputs(outputs, [*models, *files, *recipes])
    if files and len(files) != len(models):
        raise ConfigError(
            f"--weights must be given for each of {len(models)} models, or for none, not "
            f"{len(files)} times; a name may bring its own file, as "
            "py:signbook.zoo.resnet:load_resnet20?path=FILE does"
        )
    if len(recipes) not in (0, 1, len(models)):
        raise ConfigError(
            f"--recipe must be given once, or for each of {len(models)} models, not "
            f"{len(recipes)} times"
        )
    if recipes and any(given is not None for given in (format, d, k)):
        raise ConfigError("--recipe must stand without --format, --d and --k: it has its own")
    with warnings_in_short() as warned:
        read = [vq.Recipe.from_yaml(path) for path in recipes]
        refuse_inputs(outputs, [file for each in read for file in each.files])
        own: list[Path | None] = [*files] or [None] * len(models)
        pairs = list(zip(models, own, strict=True))
        found = vq.universal_codebook(
            _resolved(track(pairs, "drawing sub-vectors"), seed),
            read * (len(models) // len(read)) if read else _format(format, d, k),
            by=by,
            samples=samples,
            bandwidth=bandwidth,
            seed=seed,
        )
        with atomic_file(out) as file:
            np.save(file, found.integers)
    document = _document(found, out, by, samples, seed) | {"warnings": warned}
    save_json(json, document)
    print_table(f"{out} from {len(models)} models", _COLUMNS, document["networks"])
    print_totals(document)
    return document


def _format(method: str | None, d: int | None, k: int | None) -> "SSVQ | VQ":
    import vq

    kinds: dict[str, type[SSVQ] | type[VQ]] = {"vq": vq.VQ, "ssvq": vq.SSVQ}
    if method is not None and method not in kinds:
        raise ConfigError(f"--format must be vq or ssvq, not {method!r}")
    settings: dict[str, Any] = {"d": d, "k": k}
    return kinds[method or "vq"](**settings)


def _resolved(
    pairs: "Iterator[tuple[str, Path | None]]", seed: int
) -> "Iterator[tuple[str, nn.Module]]":
    """Models by name, one at a time."""
    import torch

    from signbook.naming import resolve_model

    for model, weights in pairs:
        torch.manual_seed(seed)
        yield model, resolve_model(model, weights)


def _document(
    found: "UniversalCodebook", out: Path, by: str, samples: int, seed: int
) -> dict[str, Any]:
    """The ``signbook.codebook/1`` document."""
    bits = found.bits()
    k, d = found.integers.shape
    return {
        "schema": "signbook.codebook/1",
        "file": str(out),
        "format": found.method,
        "d": d,
        "k": k,
        "bytes": bits.book_bytes,
        "sha256": found.book.name.removeprefix("sha256:"),
        "by": by,
        "bandwidth": found.bandwidth,
        "samples": samples,
        "seed": seed,
        "bits_per_weight": bits.indices,
        "bits_per_weight_shared": bits.shared,
        "padding_bits_per_weight": bits.padding,
        "networks": [
            {
                "name": drawn.name,
                "layers": len(drawn.geometries),
                "left_out": len(drawn.left_out),
                "sub_vectors": sum(drawn.held),
                "drawn": sum(drawn.counts),
                "weights": own.weights,
                "bits_per_weight": own.indices,
                "bits_per_weight_shared": own.shared,
                "bits_per_weight_alone": own.alone,
                "padding_bits_per_weight": own.padding,
            }
            for drawn, own in zip(found.drawn, bits.networks, strict=True)
        ],
        "layers": [
            {"network": drawn.name, "name": g.name, "sub_vectors": held, "drawn": count}
            for drawn in found.drawn
            for g, held, count in zip(drawn.geometries, drawn.held, drawn.counts, strict=True)
        ],
        "left_out": [
            {"network": drawn.name, "name": name}
            for drawn in found.drawn
            for name in drawn.left_out
        ],
    }
