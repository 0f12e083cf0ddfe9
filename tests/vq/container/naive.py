"""A second reader, written from docs/spec-vqstream-1.md alone: slow, plain, no numpy.

It shares no line with ``vq.container``, so an error would have to be made twice to stay unseen.
"""

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping


class NaiveFile:
    """Decode everything at once.

    ``stream`` holds the integers of every layer in stream order, ``integers`` its matrix row by
    row, ``weights`` the bytes of its float32 tensor, ``kept`` (dtype, shape, bytes).
    """

    def __init__(self, data: bytes, rom: Mapping[str, bytes] | None = None) -> None:
        (length,) = struct.unpack("<Q", data[:8])
        table = json.loads(data[8 : 8 + length])
        metadata = table.pop("__metadata__")
        assert metadata["layout"] in ("vqstream/1", "vqstream/2")
        self.rom = rom or {}
        self.tensors = {}
        for name, row in table.items():
            start, end = row["data_offsets"]
            self.tensors[name] = data[8 + length + start : 8 + length + end]
            digest = hashlib.sha256(self.tensors[name]).hexdigest()
            assert json.loads(metadata["sha256"])[name] == digest
        geometry = json.loads(metadata["geometry"])
        self.stream: dict[str, list[int]] = {}
        self.integers: dict[str, list[int]] = {}
        self.weights: dict[str, bytes] = {}
        first_scale = 0
        for layer in geometry["layers"]:
            self._decode(layer, first_scale)
            first_scale += layer["scales"]
        self.kept = {
            name: (dtype, tuple(shape), self.tensors[name])
            for name, dtype, shape in geometry["kept"]
        }

    def _decode(self, layer: dict, first_scale: int) -> None:
        name, (outputs, channels, *taps) = layer["name"], layer["shape"]
        positions = 1
        for n in taps:
            positions *= n
        inputs = channels * positions
        d, k = layer["d"], layer["k"]
        along_outputs = layer["axis"] == "out"
        rows = -(-outputs // d) if along_outputs else outputs
        columns = inputs if along_outputs else -(-inputs // d)
        tile = layer["tile_outputs"] // d if along_outputs else layer["tile_outputs"]
        if k:
            subvectors = self._subvectors(layer, rows * columns)
        else:
            subvectors = [[w] for w in self._scalars(layer, rows * columns)]
        matrix = [[0] * inputs for _ in range(outputs)]
        for (row, column), subvector in zip(walk(rows, columns, tile), subvectors, strict=True):
            for e, weight in enumerate(subvector):
                o, i = (row * d + e, column) if along_outputs else (row, column * d + e)
                if o < outputs and i < inputs:
                    matrix[o][i] = weight
        scales = self.tensors.get("_scales")
        group_scales = self.tensors.get(f"{name}.group_scales")
        places = group_places(layer, inputs) if layer["group"] else {}
        if layer["group"]:
            self._subtract_zeros(layer, matrix, places)
        self.stream[name] = [weight for subvector in subvectors for weight in subvector]
        self.integers[name] = [weight for row in matrix for weight in row]
        flat = [b""] * (outputs * inputs)
        for o in range(outputs):
            for i in range(inputs):
                tap, channel = divmod(i, channels)
                if layer["axis"] == "kernel":
                    channel, tap = divmod(i, positions)
                if layer["group"]:
                    at = places[o, i // layer["group"]]
                    (scale,) = struct.unpack_from("<e", group_scales, 2 * at)
                elif layer["scales"] == 0:
                    scale = 1.0
                else:
                    at = first_scale + (o if layer["scales"] > 1 else 0)
                    (scale,) = struct.unpack_from("<f", scales, 4 * at)
                # The product is exact in double precision, so packing rounds once.
                at = o * inputs + channel * positions + tap
                if layer["op"] == "linear_t":
                    at = i * outputs + o
                flat[at] = struct.pack("<f", float(matrix[o][i]) * scale)
        self.weights[name] = b"".join(flat)

    def _subvectors(self, layer: dict, count: int) -> list[list[int]]:
        d, k, b, sign_bits = layer["d"], layer["k"], layer["b"], layer["sign_bits"]
        stream = self.tensors[f"{layer['name']}.stream"]
        book = layer["codebook"]
        codewords = struct.unpack(f"{k * d}b", self.rom.get(book) or self.tensors[book])
        out = []
        for n in range(count):
            chunk, lane = divmod(n, 512)
            start = chunk * 64 * (b + sign_bits)  # in bytes; only the last chunk is shorter
            index = sum(bit(stream, 8 * (start + 64 * p) + lane) << p for p in range(b))
            first = 8 * (start + 64 * b) + lane * sign_bits
            signs = [bit(stream, first + e) for e in range(sign_bits)]
            if sign_bits == 0:
                signs = [0] * d
            elif sign_bits == d - 1:
                signs.append(sum(signs) % 2)
            codeword = codewords[index * d : (index + 1) * d]
            out.append([-m if s else m for m, s in zip(codeword, signs, strict=True)])
        return out

    def _scalars(self, layer: dict, count: int) -> list[int]:
        stream, b = self.tensors[f"{layer['name']}.stream"], layer["b"]
        if layer["method"] == "int8":
            return list(struct.unpack_from(f"{count}b", stream))
        return [
            sum(bit(stream, 8 * 64 * (n // 512 * b + p) + n % 512) << p for p in range(b))
            for n in range(count)
        ]

    def _subtract_zeros(self, layer: dict, matrix: list[list[int]], places: dict) -> None:
        for o, row in enumerate(matrix):
            for i in range(len(row)):
                if layer["zeros"]:
                    zeros = self.tensors[f"{layer['name']}.group_zeros"]
                    row[i] -= zeros[places[o, i // layer["group"]]]
                else:
                    row[i] -= 2 ** (layer["b"] - 1)


def bit(data: bytes, i: int) -> int:
    return data[i // 8] >> (i % 8) & 1


def walk(rows: int, columns: int, tile: int) -> Iterator[tuple[int, int]]:
    """Row and column of the grid in stream order."""
    for first in range(0, rows, tile):
        for column in range(columns):
            for row in range(first, min(first + tile, rows)):
                yield row, column


def group_places(layer: dict, inputs: int) -> dict[tuple[int, int], int]:
    """Place of every group (o, i div group) in the tensors of groups."""
    columns = -(-inputs // layer["group"])
    order = walk(layer["shape"][0], columns, layer["tile_outputs"])
    return {at: n for n, at in enumerate(order)}
