"""The safetensors header: a table of tensors and a string-to-string dictionary.

This is the only code that parses bytes nobody has checked yet, so it believes nothing: types,
ranges, order, alignment and overlap are all verified before any tensor is touched.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeGuard

from vq.container.constants import DTYPE_BYTES, GRANULE_BYTES, PAGE_BYTES
from vq.container.geometry import round_up
from vq.errors import ContainerError

__all__ = [
    "Header", "TensorSpec", "build_header", "canonical_json", "is_pad", "is_sha256", "parse_header",
    "parse_json", "tensor_problem",
]  # fmt: skip

_LENGTH_BYTES = 8
_HEADER_MAX_BYTES = 100_000_000  # the stock reader's own limit
_DIMENSION_MAX = 2**48
_DIMENSIONS = 8
_PAD = re.compile(r"_pad\.[0-9]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class TensorSpec:
    """One row of the table: ``offset`` counts from the start of the file, in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]

    @property
    def end(self) -> int:
        return self.offset + self.nbytes


@dataclass(frozen=True)
class Header:
    """A checked header: tensors in file order and the metadata strings."""

    tensors: dict[str, TensorSpec]
    metadata: dict[str, str]
    data_offset: int


def is_pad(name: str) -> bool:
    """Whether a tensor is filling between two others."""
    return _PAD.fullmatch(name) is not None


def is_sha256(value: object) -> bool:
    """Whether ``value`` is a sha256 as the metadata writes it: 64 lower-case digits."""
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def tensor_problem(dtype: object, shape: object) -> str | None:
    """What is wrong with the dtype and shape of a tensor, or None; takes untrusted values."""
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        return f"dtype must be a known one, not {_short(dtype)}"
    if not _integers(shape) or len(shape) > _DIMENSIONS:
        return f"shape must be at most {_DIMENSIONS} sizes below 2**48, not {_short(shape)}"
    return None


def canonical_json(value: object) -> str:
    """Serialise without spaces and with sorted keys, so that equal values hash equally."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def build_header(tensors: list[TensorSpec], data_offset: int, metadata: dict[str, str]) -> bytes:
    """Serialise a header; spaces fill it up to the next 4096 bytes."""
    table: dict[str, Any] = {"__metadata__": metadata}
    for t in tensors:
        start = t.offset - data_offset
        table[t.name] = {
            "dtype": t.dtype,
            "shape": list(t.shape),
            "data_offsets": [start, start + t.nbytes],
        }
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=True).encode()
    length = round_up(_LENGTH_BYTES + len(text), PAGE_BYTES) - _LENGTH_BYTES
    return length.to_bytes(_LENGTH_BYTES, "little") + text.ljust(length)


def parse_header(data: memoryview) -> Header:
    """Check and read the header of a whole file mapped at ``data``.

    Raises
    ------
    ContainerError
        For anything that is not exactly what :func:`build_header` could have written.
    """
    if len(data) < _LENGTH_BYTES:
        raise ContainerError(f"file must hold at least 8 bytes, not {len(data)}")
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    data_offset = _LENGTH_BYTES + length
    if length > min(_HEADER_MAX_BYTES, len(data) - _LENGTH_BYTES):
        raise ContainerError(f"header length must fit the file of {len(data)} bytes, not {length}")
    if data_offset % PAGE_BYTES:
        raise ContainerError(
            f"data must start on a {PAGE_BYTES}-byte boundary, not at byte {data_offset}; "
            "the file was not written by signbook"
        )
    table = parse_json(bytes(data[_LENGTH_BYTES:data_offset]), "header")
    if not isinstance(table, dict):
        raise ContainerError("header must be a JSON object")
    metadata = table.pop("__metadata__", None)
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ContainerError("header field __metadata__ must map strings to strings")
    specs = sorted((_tensor(n, row, data_offset) for n, row in table.items()), key=_position)
    end = data_offset
    for t in specs:
        if t.offset != end:
            how = "overlap the one before it" if t.offset < end else "leave no hole before it"
            verb = "must not" if t.offset < end else "must"
            raise ContainerError(f"tensor {t.name!r}: data_offsets {verb} {how}")
        if t.offset % GRANULE_BYTES and not is_pad(t.name):
            raise ContainerError(
                f"tensor {t.name!r}: must start on {GRANULE_BYTES} bytes, not at {t.offset}"
            )
        end = t.end
    if end != len(data):
        raise ContainerError(
            f"file must end with its last tensor at byte {end}, not at {len(data)}; "
            "it is truncated or has trailing data"
        )
    return Header({t.name: t for t in specs}, metadata, data_offset)


def _position(t: TensorSpec) -> tuple[int, int]:
    return t.offset, t.end


def _tensor(name: str, row: object, data_offset: int) -> TensorSpec:
    where = f"tensor {name!r}"
    if not isinstance(row, dict) or row.keys() != {"dtype", "shape", "data_offsets"}:
        raise ContainerError(f"{where}: must have exactly dtype, shape and data_offsets")
    dtype, shape, offsets = row["dtype"], row["shape"], row["data_offsets"]
    if problem := tensor_problem(dtype, shape):
        raise ContainerError(f"{where}: {problem}")
    if not _integers(offsets) or len(offsets) != 2:
        raise ContainerError(f"{where}: data_offsets must be two offsets, not {_short(offsets)}")
    spec = TensorSpec(name, dtype, tuple(shape), data_offset + offsets[0])
    if spec.nbytes != offsets[1] - offsets[0]:
        raise ContainerError(
            f"{where}: data_offsets must span the {spec.nbytes} bytes of its shape, "
            f"not {offsets[1] - offsets[0]}"
        )
    return spec


def _integers(value: object) -> TypeGuard[Sequence[int]]:
    return isinstance(value, (list, tuple)) and all(
        type(n) is int and 0 <= n < _DIMENSION_MAX for n in value
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 80 else text[:77] + "..."


def parse_json(text: str | bytes, what: str) -> Any:
    """Parse untrusted JSON without floats, duplicate keys or unprintable names."""

    def refuse(token: str) -> NoReturn:
        raise ContainerError(f"{what} must hold no number like {_short(token)}")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise ContainerError(f"{what} must name {_short(key)} once, not twice")
            for text in (key, value):
                if isinstance(text, str):
                    text.encode()  # a lone surrogate can be neither printed nor hashed
            found[key] = value
        return found

    try:
        decoded = text.decode() if isinstance(text, bytes) else text
        return json.loads(
            decoded, parse_float=refuse, parse_constant=refuse, object_pairs_hook=unique
        )
    except (ValueError, RecursionError) as error:
        if isinstance(error, ContainerError):
            raise
        raise ContainerError(f"{what} must be valid JSON, but {_not_json(error)}") from None


def _not_json(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"it is none from character {error.pos} on"
    if isinstance(error, UnicodeError):
        return "it holds bytes or characters that are no UTF-8"
    if isinstance(error, RecursionError):
        return "it nests too deeply"
    return "a number has too many digits"
