"""Containers as checkpoints of other libraries: the codes as they are, in another order of bits.

Nothing is rounded: codes, zeros and scales of the int methods are repacked. What a format cannot
hold is refused, or stored as dense fp32 weights.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from signbook.packed.compressed_tensors import CompressedTensors
from signbook.packed.folder import Stored, kept_names, read_architecture, write_folder
from signbook.packed.gptq import Gptq
from vq.container import Container, Geometry, open_container
from vq.errors import ConfigError, bulleted

__all__ = ["FORMATS", "export_packed"]

FORMATS: dict[str, type[CompressedTensors] | type[Gptq]] = {
    "compressed-tensors": CompressedTensors,
    "gptq": Gptq,
}


def export_packed(
    file: Path, to: str, out: Path, *, model: str | None = None, dense_others: bool = False
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
    with open_container(file) as container:
        architecture.require_fit(container)
        linears = architecture.untied_linears()
        packed: list[Geometry] = []
        dense: list[Geometry] = []
        problems: list[str] = []
        for entry in container.layers:
            g = entry.geometry
            problem = _problem(g) or (
                "must be a Linear of the model that is tied to no other"
                if g.name not in linears
                else kind.problem(container, g)
            )
            (dense if problem else packed).append(g)
            problems += [f"layer {g.name!r}: {problem}"] if problem else []
        if problems and not dense_others:
            raise ConfigError(
                bulleted(f"{file}: --to {to}", problems)
                + "\nwrite such layers as dense weights with --dense-others, "
                "or all of them with --to dense"
            )
        if not packed:
            raise ConfigError(f"{file}: --to {to} must find a layer to pack, not none")
        names = [g.name for g in packed]
        writer = kind(container, packed, [n for n in linears if n not in names])
        tensors = [*writer.tensors(), *_rest(container, dense)]
        config = architecture.config_json(writer.dtype, writer.config())
        files = write_folder(out, tensors, config, architecture.folder)
    return {"files": files, "packed": names, "dense": [g.name for g in dense]}


def _problem(g: Geometry) -> str | None:
    if g.k:
        return f"method must be int8, int4, int3 or int2, not {g.method}"
    if g.op != "linear":
        return f"op must be linear, not {g.op}"
    return None


def _rest(container: Container, dense: list[Geometry]) -> Iterator[Stored]:
    """Dense weights of the layers that are not packed, and the kept tensors as they are."""
    for g in dense:
        yield _dense(container, g)
    for name in kept_names(container):
        yield _kept(container, name)


def _dense(container: Container, g: Geometry) -> Stored:
    shape = g.shape[::-1] if g.op == "linear_t" else g.shape
    return Stored(f"{g.name}.weight", "F32", shape, lambda: container.weight(g.name))


def _kept(container: Container, name: str) -> Stored:
    kept = container.kept(name)
    return Stored(name, kept.dtype, kept.shape, lambda: container.kept(name).data)
