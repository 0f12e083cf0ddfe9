"""How packed weights lie in memory where kernels multiply by them, and the way there and back.

A tile is 16 rows of a layer's grid of sub-vectors by 4 of its columns: 64 lanes, lane
``4 * row + column``, so that sums over four inputs need no step across lanes. Blocks of 16 rows
follow each other, in a block the columns do, in one sequential stream. Every lane takes the bits
that the container gives it; only their order differs:

======== ======================= ================================================================
form     of                      bytes
======== ======================= ================================================================
planes   all others              a tile: 8 bytes for each bit of the index, then for each sign
bytes    8 bits of index         a tile: 64 indices, then 8 bytes for each sign
nibbles4 4 bits, d = 4, 4 signs  a tile: index and, above it, signs 0 to 3 of each lane
nibbles8 4 bits, d = 8, 8 signs  two tiles: 64 bytes as above of each, then 64 of signs 4 to 7,
                                 the first tile's below the second one's
int8     int8                    a tile: 64 integers, plus 128
int4     int4                    two tiles: 64 bytes, the first tile's codes below the second's
======== ======================= ================================================================

A group of inputs that share a scale starts on a tile of its own. What is filled up, to 16 rows, to
4 columns and to two tiles, is zero bits.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vq.container import Geometry, codec, order

__all__ = ["COLUMNS", "FORMS", "ROWS", "Tiling", "from_tiles", "pack", "to_tiles", "unpack"]

U8 = NDArray[np.uint8]

#: Rows and columns of a tile, and lanes.
ROWS, COLUMNS = 16, 4
_LANES = ROWS * COLUMNS
#: Names of the forms, in the order of their numbers in C.
FORMS = ("planes", "bytes", "nibbles4", "nibbles8", "int8", "int4")
_PAIRED = ("nibbles8", "int4")
_PLANE = _LANES // 8


class Tiling(NamedTuple):
    """What of a layer's geometry its kernels need; whole numbers, as an operator takes them.

    Attributes
    ----------
    outputs, inputs : int
        Of the matrix.
    d, k, bits, signs : int
        As in the container: sub-vector length, codewords (0 of scalars), bits of an index or code,
        stored signs of a sub-vector.
    out : int
        1 if sub-vectors lie along outputs.
    group : int
        Inputs that share a group scale; 0 without groups.
    """

    outputs: int
    inputs: int
    d: int
    k: int
    bits: int
    signs: int
    out: int
    group: int

    @classmethod
    def of(cls, g: Geometry) -> "Tiling":
        """Of a layer of a container."""
        return cls(g.O, g.I, g.d, g.k, g.b, g.sign_bits, int(g.axis == "out"), g.group)

    @property
    def form(self) -> str:
        """One of ``FORMS``."""
        coding = self.bits, self.d, self.signs
        if not self.k:
            return {8: "int8", 4: "int4"}.get(self.bits, "planes")
        if coding == (4, 4, 4):
            return "nibbles4"
        if coding == (4, 8, 8):
            return "nibbles8"
        return "bytes" if self.bits == 8 else "planes"

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the grid of sub-vectors."""
        if self.out:
            return -(-self.outputs // self.d), self.inputs
        return self.outputs, -(-self.inputs // self.d)

    @property
    def blocks(self) -> int:
        """Blocks of 16 rows."""
        return -(-self.grid[0] // ROWS)

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """First column and end of each run of columns that starts on a tile of its own."""
        columns = self.grid[1]
        width = min(self.group or columns, columns)
        return [(at, min(at + width, columns)) for at in range(0, columns, width)]

    def tiles(self, columns: int) -> int:
        """Tiles that so many columns of a range take."""
        tiles = -(-columns // COLUMNS)
        return tiles + tiles % 2 if self.form in _PAIRED else tiles

    @property
    def row_tiles(self) -> int:
        """Tiles of a block of rows."""
        return sum(self.tiles(end - first) for first, end in self.ranges)

    @property
    def nbytes(self) -> int:
        """Bytes of all tiles."""
        return self.blocks * self.row_tiles * _PLANE * (self.bits + self.signs)


def pack(g: Geometry, stream: U8) -> U8:
    """Tiles of a layer, [Tiling.nbytes] uint8, of its stream in a container.

    Raises
    ------
    ContainerError
        If the stream is damaged.
    """
    if g.k:
        indices, negative = codec.decode_indices(g, stream)
    else:
        indices, negative = codec.decode_codes(g, stream), None
    rows, columns = g.grid
    grid = order.from_stream(indices, rows, columns, g.tile)
    signs = None
    if negative is not None:
        signs = order.from_stream(negative[:, : g.sign_bits], rows, columns, g.tile)
    return to_tiles(Tiling.of(g), grid, signs)


def unpack(g: Geometry, tiles: U8) -> U8:
    """Undo :func:`pack`: the stream of a container, byte for byte."""
    grid, signs = from_tiles(Tiling.of(g), tiles)
    indices = order.to_stream(grid, g.tile)
    if not g.k:
        return codec.encode_codes(g, indices)
    if signs is None:
        return codec.encode_subvectors(g, indices, None)
    negative = order.to_stream(signs, g.tile)
    if g.sign_bits < g.d:
        last = np.logical_xor.reduce(negative, axis=1, keepdims=True)
        negative = np.concatenate([negative, last], axis=1)
    return codec.encode_subvectors(g, indices, negative)


def to_tiles(t: Tiling, grid: NDArray[Any], signs: NDArray[np.bool_] | None) -> NDArray[Any]:
    """Arrange indices or codes [Go, Gi], and stored signs [Go, Gi, signs], in tiles."""
    codes = _lanes(t, grid)
    negative = None if signs is None else _lanes(t, signs)
    form = t.form
    if form == "int8":
        return (codes.astype(np.uint8) ^ 0x80).reshape(-1)
    if form == "int4":
        low, high = _pairs(codes.astype(np.uint8))
        packed: NDArray[Any] = low | high << 4
        return packed.reshape(-1)
    if form.startswith("nibbles"):
        assert negative is not None
        packed = np.packbits(negative, axis=-1, bitorder="little")[..., 0]
        first = codes.astype(np.uint8) | (packed & 15) << 4
        if form == "nibbles4":
            return first.reshape(-1)
        low, high = _pairs(packed >> 4)
        parts = [*_pairs(first), low | high << 4]
        return np.stack(parts, axis=1).reshape(-1)
    if form == "bytes":
        head = codes.astype(np.uint8)
    else:
        bits = codes[:, None, :] >> np.arange(t.bits)[:, None] & 1
        head = _planes(bits.astype(np.bool_))
    if negative is None:
        return head.reshape(-1)
    return np.concatenate([head, _planes(negative.swapaxes(1, 2))], axis=1).reshape(-1)


def from_tiles(t: Tiling, tiles: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Undo :func:`to_tiles`."""
    codes: NDArray[Any]
    negative: NDArray[Any] | None = None
    form = t.form
    if form == "int8":
        codes = tiles.reshape(-1, _LANES) ^ 0x80
    elif form == "int4":
        codes = _unpaired(tiles.reshape(-1, _LANES))
    elif form.startswith("nibbles"):
        first = tiles.reshape(-1, _LANES)
        if form == "nibbles8":
            parts = tiles.reshape(-1, 3, _LANES)
            first, rest = parts[:, :2].reshape(-1, _LANES), _unpaired(parts[:, 2])
        codes = first & 15
        packed: NDArray[Any] = first >> 4 | rest << 4 if form == "nibbles8" else first >> 4
        negative = np.unpackbits(packed[..., None], axis=-1, count=t.signs, bitorder="little")
    else:
        planes = tiles.reshape(-1, _PLANE * (t.bits + t.signs))
        codes = planes[:, : _PLANE * t.bits]
        if form == "planes":
            kind: Any = np.uint8 if t.bits <= 8 else np.uint16
            bits = _bits(codes, t.bits).astype(kind)
            codes = (bits << np.arange(t.bits, dtype=kind)[:, None]).sum(1, dtype=kind)
        if t.signs:
            negative = _bits(planes[:, _PLANE * t.bits :], t.signs).swapaxes(1, 2)
    return _grid(t, codes), None if negative is None else _grid(t, negative.astype(np.bool_))


def _lanes(t: Tiling, grid: NDArray[Any]) -> NDArray[Any]:
    """Bring a grid [Go, Gi, ...] into lanes of tiles [n, 64, ...], filled up with zeros."""
    rows, _, *item = grid.shape
    lanes = np.zeros((t.blocks * ROWS, COLUMNS * t.row_tiles, *item), grid.dtype)
    at = 0
    for first, end in t.ranges:
        lanes[:rows, at : at + end - first] = grid[:, first:end]
        at += COLUMNS * t.tiles(end - first)
    tiles = lanes.reshape(t.blocks, ROWS, t.row_tiles, COLUMNS, *item).swapaxes(1, 2)
    return tiles.reshape(-1, _LANES, *item)


def _grid(t: Tiling, lanes: NDArray[Any]) -> NDArray[Any]:
    """Undo :func:`_lanes`."""
    item = lanes.shape[2:]
    tiles = lanes.reshape(t.blocks, t.row_tiles, ROWS, COLUMNS, *item).swapaxes(1, 2)
    wide = tiles.reshape(t.blocks * ROWS, COLUMNS * t.row_tiles, *item)
    rows, columns = t.grid
    grid = np.empty((rows, columns, *item), lanes.dtype)
    at = 0
    for first, end in t.ranges:
        grid[:, first:end] = wide[:rows, at : at + end - first]
        at += COLUMNS * t.tiles(end - first)
    return grid


def _planes(bits: NDArray[np.bool_]) -> U8:
    """Pack bits of lanes [n, planes, 64] to [n, 8 * planes]."""
    return np.packbits(bits, axis=-1, bitorder="little").reshape(len(bits), -1)


def _bits(planes: NDArray[Any], count: int) -> NDArray[Any]:
    """Undo :func:`_planes`."""
    grid = np.ascontiguousarray(planes).reshape(len(planes), count, _PLANE)
    return np.unpackbits(grid, axis=-1, bitorder="little")


def _pairs(lanes: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """First and second of each two tiles."""
    return lanes[0::2], lanes[1::2]


def _unpaired(packed: NDArray[Any]) -> NDArray[Any]:
    """Nibbles [n, 64] of two tiles each as [2 n, 64]."""
    return np.stack([packed & 15, packed >> 4], axis=1).reshape(-1, _LANES)
