"""One layer's integers to stream bytes and back, for every method."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vq.container import bits
from vq.container.constants import CHUNK_SUBVECTORS
from vq.container.geometry import Geometry
from vq.errors import ContainerError

__all__ = [
    "decode_codes",
    "decode_indices",
    "decode_subvectors",
    "encode_codes",
    "encode_subvectors",
    "require_clean",
]

U8 = NDArray[np.uint8]
_STRIDE = 1 << 19  # weights decoded at a time: the working memory stays in a core's own cache
_TABLE_BYTES = 1 << 19  # largest table of pairs, for the same reason


def encode_subvectors(
    g: Geometry, indices: NDArray[np.integer], negative: NDArray[np.bool_] | None
) -> U8:
    """Encode an ssvq or vq layer.

    Parameters
    ----------
    g : Geometry
    indices : [N] integers below ``k``, in stream order
    negative : [N, d] bool in stream order, or None for vq

    Returns
    -------
    [stream_bytes] uint8
    """
    planes = bits.pack_planes(indices, g.b)
    if negative is None:
        return planes.reshape(-1)
    full = g.chunks - 1
    signs = bits.pack_signs(negative, g.sign_bits)
    head = signs[: full * g.sign_part_bytes].reshape(full, g.sign_part_bytes)
    body = np.concatenate([planes[:full], head], axis=1)
    return np.concatenate([body.reshape(-1), planes[full], signs[full * g.sign_part_bytes :]])


def decode_subvectors(g: Geometry, stream: U8, codebook: NDArray[np.int8]) -> NDArray[np.int8]:
    """Decode an ssvq or vq stream to integer weights [N, d] in stream order.

    Raises
    ------
    ContainerError
        If an index is not below ``k`` or a padding bit is not zero.
    """
    out = np.empty((g.N, g.d), np.int8)
    pairs = _pairs(g, codebook)
    at = 0
    for indices, negative in _parts(g, stream):
        part = out[at : at + len(indices)]
        if pairs is not None and len(indices) % 2 == 0:
            np.take(pairs, indices.view("<u2"), axis=0, out=part.reshape(-1, 2 * g.d), mode="clip")
        else:
            np.take(codebook, indices, axis=0, out=part, mode="clip")
        if negative is not None:
            # -m = (m ^ -1) - -1, the same two steps as the hardware.
            mask = negative.view(np.int8)
            np.negative(mask, out=mask)
            np.bitwise_xor(part, mask, out=part)
            np.subtract(part, mask, out=part)
        at += len(indices)
    return out


def decode_indices(g: Geometry, stream: U8) -> tuple[NDArray[np.integer], NDArray[np.bool_] | None]:
    """Undo :func:`encode_subvectors`: no codebook is needed.

    Returns
    -------
    indices : [N] integers below ``k``, in stream order
    negative : [N, d] bool in stream order, or None for vq

    Raises
    ------
    ContainerError
        See :func:`decode_subvectors`.
    """
    indices, negative = zip(*_parts(g, stream), strict=True)
    signs = np.concatenate(negative) if g.sign_bits else None
    return np.concatenate(indices), signs


def _pairs(g: Geometry, codebook: NDArray[np.int8]) -> NDArray[np.int8] | None:
    """Table of two codewords at ``i + 256 * j``, which halves the look-ups of a large layer."""
    size = 512 * g.k * g.d
    if g.k > 256 or size > min(_TABLE_BYTES, g.N * g.d // 8):
        return None
    table = np.zeros((g.k, 256, 2, g.d), np.int8)
    table[:, : g.k, 0] = codebook
    table[:, : g.k, 1] = codebook[:, None]
    return table.reshape(-1, 2 * g.d)


def _parts(
    g: Geometry, stream: U8
) -> Iterator[tuple[NDArray[np.integer], NDArray[np.bool_] | None]]:
    """Yield (indices, negative) for runs of full chunks, then for the last chunk."""
    chunk_bytes = g.index_part_bytes + g.sign_part_bytes
    full = g.chunks - 1
    stride = _STRIDE // (CHUNK_SUBVECTORS * g.d)
    for first in range(0, full, stride):
        count = min(stride, full - first)
        block = stream[first * chunk_bytes : (first + count) * chunk_bytes].reshape(count, -1)
        indices = bits.unpack_planes(block[:, : g.index_part_bytes], g.b)
        _require_codewords(g, indices)
        signs = np.ascontiguousarray(block[:, g.index_part_bytes :]).reshape(-1)
        yield indices, _signs(g, signs)
    indices, packed = _last(g, stream)
    _require_codewords(g, indices)
    negative = _signs(g, packed)
    yield indices, None if negative is None else negative[: len(indices)]


def _last(g: Geometry, stream: U8) -> tuple[NDArray[np.integer], U8]:
    """Indices and packed signs of the last chunk, whose padding is zero."""
    last = stream[(g.chunks - 1) * (g.index_part_bytes + g.sign_part_bytes) :]
    indices = bits.unpack_planes(last[: g.index_part_bytes].reshape(1, -1), g.b)
    r = g.last_subvectors
    _require_zero(g, "index", indices[r:])
    packed = last[g.index_part_bytes :]
    if g.sign_bits:
        used = r * g.sign_bits
        _require_zero(g, "sign", np.unpackbits(packed, bitorder="little")[used:])
    return indices[:r], packed


def require_clean(g: Geometry, stream: U8) -> None:
    """Refuse a stream whose padding is not zero, for whoever decodes it by other means.

    Raises
    ------
    ContainerError
    """
    if g.k:
        _last(g, stream)
    elif g.method == "int8":
        _require_zero(g, "weight", stream[g.weights :])
    else:
        last = stream[(g.chunks - 1) * g.index_part_bytes :]
        codes = bits.unpack_planes(last.reshape(1, -1), g.b)
        _require_zero(g, "code", codes[g.last_subvectors :])


def _require_codewords(g: Geometry, indices: NDArray[np.integer]) -> None:
    if len(indices) and int(indices.max()) >= g.k:
        raise ContainerError(
            f"layer {g.name!r}: index must be below k = {g.k}, not {int(indices.max())}"
        )


def _signs(g: Geometry, packed: U8) -> NDArray[np.bool_] | None:
    return bits.unpack_signs(packed, g.sign_bits, g.d) if g.sign_bits else None


def encode_codes(g: Geometry, codes: U8) -> U8:
    """Encode scalar codes [weights] (stream order): int8 as bytes, grouped codes as planes."""
    if g.method != "int8":
        return bits.pack_planes(codes, g.b).reshape(-1)
    stream = np.zeros(g.stream_bytes, np.uint8)
    stream[: g.weights] = codes
    return stream


def decode_codes(g: Geometry, stream: U8) -> U8:
    """Undo :func:`encode_codes`. The bytes of int8 weights are returned as they are."""
    if g.method == "int8":
        _require_zero(g, "weight", stream[g.weights :])
        return stream[: g.weights]
    codes = bits.unpack_planes(stream.reshape(g.chunks, -1), g.b).astype(np.uint8, copy=False)
    _require_zero(g, "code", codes[g.weights :])
    return codes[: g.weights]


def _require_zero(g: Geometry, part: str, padding: NDArray[np.integer]) -> None:
    if padding.any():
        raise ContainerError(
            f"layer {g.name!r}: {part} padding must be zero bits; the file is damaged"
        )
