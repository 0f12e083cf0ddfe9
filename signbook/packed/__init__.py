"""Containers as checkpoints of other libraries: the codes as they are, in another order of bits.

Nothing is rounded: codes, zeros and scales of the int methods are repacked. What a format cannot
hold is refused, or stored as dense fp32 weights.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from signbook.packed.compressed_tensors import CompressedTensors
from signbook.packed.folder import Stored, read_architecture, write_folder
from signbook.packed.gptq import Gptq
from vq.container import Container, Geometry, open_container
from vq.container.rom import roms_of
from vq.errors import ConfigError, ContainerError, bulleted

__all__ = ["FORMATS", "export_packed"]

FORMATS: dict[str, type[CompressedTensors] | type[Gptq]] = {
    "compressed-tensors": CompressedTensors,
    "gptq": Gptq,
}


def export_packed(
    file: Path,
    to: str,
    out: Path,
    *,
    model: str | None = None,
    dense_others: bool = False,
    rom: Path | None = None,
) -> dict[str, Any]:
    """Write a container as a folder that transformers reads with another library's help.

    Parameters
    ----------
    file : Path
        The container of a model of transformers.
    to : str
        One of ``FORMATS``.
    out : Path
        A folder, made if it does not exist.
    model : str, optional
        What the model is; without it, the ``config.json`` beside ``file`` says so.
    dense_others : bool
        Store layers that the format cannot hold as dense fp32 weights; else they are refused.
    rom : Path, optional
        Array file of a codebook that the container only names.

    Returns
    -------
    dict
        ``files``: paths of what was written. ``packed`` and ``dense``: names of the layers.

    Raises
    ------
    ConfigError
        If a layer cannot be packed, or the model is unknown or another one.
    ContainerError, OutputError
    """
    kind = FORMATS[to]
    architecture = read_architecture(file, model)
    with open_container(file, rom=roms_of(rom)) as container:
        container.require_plain(f"--to {to}")
        layers = [entry.geometry for entry in container.layers]
        weights = {g.name: _dense(container, g) for g in layers}
        kept = [_kept(container, n) for n in container.kept_names if container.is_own(n)]
        shapes = {tensor.name: tensor.shape for tensor in (*weights.values(), *kept)}
        if len(shapes) < len(weights) + len(kept):
            raise ContainerError(f"{file}: a tensor must be kept or coded, not both")
        architecture.require_fit(file, shapes)
        linears = architecture.untied_linears()
        packed: list[Geometry] = []
        problems: dict[str, str] = {}
        for g in layers:
            problem = _problem(g, linears) or kind.problem(container, g)
            if problem:
                problems[g.name] = problem
            else:
                packed.append(g)
        if problems and not dense_others:
            listed = [f"layer {name!r}: {problem}" for name, problem in problems.items()]
            raise ConfigError(
                f"{bulleted(f'{file}: --to {to}', listed)}\n--dense-others stores such layers as "
                "dense weights, --to dense all of them"
            )
        if not packed:
            raise ConfigError(f"{file}: --to {to} must find a layer to pack, not none")
        names = [g.name for g in packed]
        writer = kind(container, packed, [n for n in linears if n not in names])
        files = write_folder(
            out,
            [*writer.tensors(), *(weights[name] for name in problems), *kept],
            architecture.config_json(writer.dtype, writer.config()),
            architecture.folder,
        )
    return {"files": files, "packed": names, "dense": list(problems)}


def _problem(g: Geometry, linears: Collection[str]) -> str | None:
    """What a layer must be to be packed in any format, if it is not."""
    if g.k:
        return f"method must be int8, int4, int3 or int2, not {g.method}"
    if g.op != "linear":
        return f"op must be linear, not {g.op}"
    if g.name not in linears:
        return "weight must be that of one Linear alone, not tied"
    return None


def _dense(container: Container, g: Geometry) -> Stored:
    shape = g.shape[::-1] if g.op == "linear_t" else g.shape
    return Stored(f"{g.name}.weight", "F32", shape, lambda: container.weight(g.name))


def _kept(container: Container, name: str) -> Stored:
    kept = container.kept(name)
    return Stored(name, kept.dtype, kept.shape, lambda: container.kept(name).data)
