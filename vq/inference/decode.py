"""Decode a container's layers with torch, on any device: planes, signs and scales to weights.

The packed bytes go to the device; everything else happens there. The weights equal those of the
numpy decoder bit for bit.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vq.container import CHUNK_SUBVECTORS, Container, ContainerError, Geometry
from vq.formats.grids import spread
from vq.layers import join_grid, weight_of

__all__ = ["decode_integers", "decode_weight"]


def decode_weight(container: Container, name: str, device: str | torch.device = "cpu") -> Tensor:
    """Weight of a layer as its module holds it, float32 on ``device``.

    Memory on the device is that of one layer: its stream, its bits as bytes, its weights.

    Raises
    ------
    ContainerError
        If the layer is damaged.
    """
    g = container.geometry(name)
    integers = decode_integers(container, name, device).float()
    if g.group:
        scale = spread(_to(container.group_scales(name), device).float(), g)
    else:
        scale = _to(container.scale(name), device)[:, None]
    return weight_of(integers * scale, g.shape, g.op, g.axis).contiguous()


def decode_integers(container: Container, name: str, device: str | torch.device = "cpu") -> Tensor:
    """Integer weights of a layer as a matrix, [O, I] int8 on ``device``.

    Raises
    ------
    ContainerError
        If the layer is damaged.
    """
    g = container.geometry(name)
    stream = _to(container.stream(name), device)
    codebook = _to(container.codebook(name), device) if g.k else None
    zeros = spread(_to(container.group_zeros(name), device), g) if g.group else None
    try:
        return _matrix(g, stream, codebook, zeros)
    except ContainerError as error:
        raise ContainerError(f"{container.path}: {error}") from None


def _matrix(g: Geometry, stream: Tensor, codebook: Tensor | None, zeros: Tensor | None) -> Tensor:
    """Decode a stream to [O, I]; ``codebook`` for ssvq and vq, ``zeros`` [O, I] for groups."""
    if codebook is not None:
        items = _sub_vectors(g, stream, codebook)
        grid = _from_stream(items, *g.grid, g.tile)
        return join_grid(grid, (g.O, g.I), g.axis)
    if not g.is_packed:
        _require_zero(g, "weight", stream[g.weights :])
        return _from_stream(stream[: g.weights].view(torch.int8), g.O, g.I, g.tile)
    codes = _planes(stream.reshape(g.chunks, -1), g.b).reshape(-1)
    _require_zero(g, "code", codes[g.weights :])
    matrix = _from_stream(codes[: g.weights], g.O, g.I, g.tile)
    assert zeros is not None
    return (matrix - zeros.int()).to(torch.int8)


def _to(array: NDArray[np.generic], device: str | torch.device) -> Tensor:
    return torch.from_numpy(array.copy()).to(device)  # the file's own bytes are read-only


def _sub_vectors(g: Geometry, stream: Tensor, codebook: Tensor) -> Tensor:
    """Sub-vectors of an ssvq or vq stream in stream order, [N, d] int8."""
    chunk_bytes = g.index_part_bytes + g.sign_part_bytes
    full, cut = g.chunks - 1, (g.chunks - 1) * chunk_bytes
    body, last = stream[:cut].reshape(full, chunk_bytes), stream[cut:]
    planes = torch.cat([body[:, : g.index_part_bytes], last[None, : g.index_part_bytes]])
    indices = _planes(planes, g.b).reshape(-1)
    _require_zero(g, "index", indices[g.N :])
    indices = indices[: g.N]
    highest = int(indices.max())
    if highest >= g.k:
        raise ContainerError(f"layer {g.name!r}: index must be below k = {g.k}, not {highest}")
    values = codebook.index_select(0, indices)
    if not g.sign_bits:
        return values
    bits = _bits(torch.cat([body[:, g.index_part_bytes :].reshape(-1), last[g.index_part_bytes :]]))
    used = g.N * g.sign_bits
    _require_zero(g, "sign", bits[used:])
    negative = bits[:used].reshape(g.N, g.sign_bits)
    if g.sign_bits < g.d:  # parity: the number of negative weights is even
        negative = torch.cat([negative, negative.sum(1, keepdim=True, dtype=torch.uint8) & 1], 1)
    return torch.where(negative.bool(), -values, values)


def _bits(data: Tensor) -> Tensor:
    """Bits of bytes, the least significant first: [..., n] to [..., 8 n], both uint8."""
    places = torch.arange(8, dtype=torch.uint8, device=data.device)
    return ((data[..., None] >> places) & 1).flatten(-2)


def _planes(planes: Tensor, bits: int) -> Tensor:
    """Values of bit-planes: [C, 64 * bits] uint8 to [C, 512] int32."""
    grid = _bits(planes.reshape(len(planes), bits, -1))
    values = torch.zeros(len(planes), CHUNK_SUBVECTORS, dtype=torch.int32, device=planes.device)
    for p in range(bits):
        values |= grid[:, p].int() << p
    return values


def _from_stream(stream: Tensor, rows: int, columns: int, tile: int) -> Tensor:
    """Undo the stream order: [rows * columns, ...] to [rows, columns, ...]."""
    item = stream.shape[1:]
    tile = min(tile, rows)
    whole = rows // tile * tile
    blocks = stream[: whole * columns].reshape(-1, columns, tile, *item)
    grid = blocks.transpose(1, 2).reshape(whole, columns, *item)
    rest = stream[whole * columns :].reshape(columns, rows - whole, *item)
    return torch.cat([grid, rest.transpose(0, 1)])


def _require_zero(g: Geometry, part: str, padding: Tensor) -> None:
    if bool(padding.any()):
        raise ContainerError(
            f"layer {g.name!r}: {part} padding must be zero bits; the file is damaged"
        )
