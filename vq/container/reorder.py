"""A file's streams in another order: the same weights, in blocks of other outputs."""

import dataclasses
import os
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vq.container import codec, order
from vq.container.geometry import Geometry
from vq.container.plan import plan_file
from vq.container.reader import Container
from vq.container.writer import write_planned

__all__ = ["write_reordered"]

Bytes = NDArray[np.uint8]
Scalar = TypeVar("Scalar", bound=np.generic)


def write_reordered(path: str | os.PathLike[str], container: Container, tile_outputs: int) -> None:
    """Write a copy of a file whose streams come in blocks of ``tile_outputs`` outputs.

    Weights, scales, codebooks, kept tensors and what the file says of its making stay as they are,
    and so does the size of every tensor. Memory use is that of one layer.

    Parameters
    ----------
    path : path
        Of the copy, not of the file itself.
    container : Container
        Open; codebooks in ROM need not be there.
    tile_outputs : int

    Raises
    ------
    ContainerError
        If the file is damaged, or a layer's sub-vectors along the outputs would straddle blocks.
    OutputError
        If the place cannot be written.
    """
    targets = []
    moved: dict[str, Callable[[Bytes], NDArray[np.generic]]] = {}
    for entry in container.layers:
        g = entry.geometry
        target = dataclasses.replace(g, tile_outputs=tile_outputs)
        targets.append(target)
        moved[f"{g.name}.stream"] = partial(_stream, g, target)
        moved[f"{g.name}.group_scales"] = partial(_groups, g, target, "<f2")
        moved[f"{g.name}.group_zeros"] = partial(_groups, g, target, "u1")

    def content(name: str) -> NDArray[np.generic]:
        data = container.tensor_bytes(name)
        return moved[name](data) if name in moved else data

    write_planned(path, plan_file(targets, container.kept_shapes, container.provenance), content)


def _stream(g: Geometry, target: Geometry, stream: Bytes) -> Bytes:
    """A stream of ``g`` in the order of ``target``."""
    if not g.k:
        return codec.encode_codes(target, _moved(codec.decode_codes(g, stream), g, target))
    indices, negative = codec.decode_indices(g, stream)
    signs = None if negative is None else _moved(negative, g, target)
    return codec.encode_subvectors(target, _moved(indices, g, target), signs)


def _moved(items: NDArray[Scalar], g: Geometry, target: Geometry) -> NDArray[Scalar]:
    return order.to_stream(order.from_stream(items, *g.grid, g.tile), target.tile)


def _groups(g: Geometry, target: Geometry, dtype: str, data: Bytes) -> NDArray[np.generic]:
    """What every group has one of, in the order of ``target``."""
    grid = order.from_stream(data.view(dtype), g.O, g.groups // g.O, g.tile)
    return order.to_stream(grid, target.tile)
