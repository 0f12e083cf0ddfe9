"""Read a container: memory-mapped, checked, one layer at a time."""

import hashlib
import mmap
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vq.container import codec, order
from vq.container.constants import INTEGER_PREFIX, RUNTIME_LAYOUT, SCALE_MAX, TOKENIZER
from vq.container.geometry import Geometry
from vq.container.header import Header, is_pad, parse_header
from vq.container.metadata import Metadata, parse_metadata
from vq.container.plan import SCALES, plan_file
from vq.container.runtime import PARTS, RuntimePart, is_runtime_tensor, parse_parts
from vq.container.writer import Kept
from vq.errors import ConfigError, ContainerError

__all__ = ["Container", "LayerEntry", "Span", "open_container"]


@dataclass(frozen=True)
class Span:
    """A run of bytes in the file; ``offset`` counts from its start."""

    offset: int
    nbytes: int


@dataclass(frozen=True)
class LayerEntry:
    """One layer of an open container: what it is and where its bytes lie.

    ``codebook`` is None for scalar methods and for a codebook in ROM. Layers that share a
    codebook have the same span.
    """

    geometry: Geometry
    stream: Span
    codebook: Span | None


def open_container(
    path: str | os.PathLike[str], *, rom: Mapping[str, NDArray[np.int8]] | None = None
) -> "Container":
    """Open a ``*.vq.safetensors`` file.

    The header, the geometry and the padding are checked now; the sha256 of a tensor is checked
    when the tensor is first read. Memory use is that of one decoded layer at a time.

    Parameters
    ----------
    path : path
    rom : mapping of ``rom:<sha256>`` to [k, d] int8, optional
        Fixed codebooks that a file may name instead of holding its own.

    Raises
    ------
    ContainerError
        If the file is damaged, hostile, or of a layout this reader does not know.
    """
    return Container(Path(path), rom or {})


class Container:
    """An open file. Use as a context manager; see :func:`open_container`.

    Attributes
    ----------
    path : Path
    file_bytes : int
    layers : tuple of LayerEntry
        In execution order.
    provenance : Provenance
    layout : str
    runtime : tuple of RuntimePart
        What remains in the model at run time; the weights alone are not the model then.
    kept_shapes : mapping of str to (str, tuple of int)
        Type and shape of the tensors stored as they are, by name, in file order.
    """

    def __init__(self, path: Path, rom: Mapping[str, NDArray[np.int8]]) -> None:
        self.path = path
        self._rom = rom
        self._verified: set[str] = set()
        self._closed = False
        try:
            with path.open("rb") as file:
                self.file_bytes = os.fstat(file.fileno()).st_size
                if self.file_bytes == 0:
                    raise ContainerError(f"{path}: file must not be empty")
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise ContainerError(
                f"{path}: must be a readable file, not refused ({error.strerror or error})"
            ) from error
        try:
            self._data = np.frombuffer(self._map, np.uint8)
            self._open(parse_header(memoryview(self._map)))
        except ContainerError as error:
            self.close()
            raise self._located(error) from None

    def _located(self, error: ContainerError) -> ContainerError:
        """Name the file in an error, unless it does already."""
        text, prefix = str(error), f"{self.path}: "
        return error if text.startswith(prefix) else ContainerError(prefix + text)

    def _open(self, header: Header) -> None:
        metadata = parse_metadata(header.metadata, header.tensors)
        self.provenance, self.layout = metadata.provenance, metadata.layout
        self._hashes = metadata.hashes
        self._check_layout(header, metadata)
        self._specs = header.tensors
        self.kept_shapes = metadata.kept
        self.layers = tuple(self._entry(g) for g in metadata.layers)
        self._by_name = {entry.geometry.name: entry for entry in self.layers}
        first = accumulate((g.scales for g in metadata.layers), initial=0)
        self._scale_at = dict(zip(self._by_name, first, strict=False))
        for name in self._specs:
            if is_pad(name) and self.tensor_bytes(name).any():
                raise ContainerError(f"tensor {name!r}: padding must be zero")
        self.runtime = self._runtime()

    def _runtime(self) -> tuple[RuntimePart, ...]:
        if self.layout != RUNTIME_LAYOUT:
            return ()
        if PARTS not in self.kept_shapes:
            raise ContainerError(f"tensor {PARTS!r}: must be in a file of {RUNTIME_LAYOUT}")
        geometries = {name: entry.geometry for name, entry in self._by_name.items()}
        return parse_parts(self.tensor_bytes(PARTS).tobytes(), self.kept_shapes, geometries)

    def _check_layout(self, header: Header, metadata: Metadata) -> None:
        """Require exactly the tensors that the geometry implies, in their places."""
        plan = plan_file(metadata.layers, metadata.kept, metadata.provenance)
        given = list(header.tensors.values())
        for want, have in zip(plan.tensors, given, strict=False):
            for field in ("name", "dtype", "shape"):
                a, b = getattr(want, field), getattr(have, field)
                if a != b:
                    raise ContainerError(f"tensor {have.name!r}: {field} must be {a!r}, not {b!r}")
            if want.offset - plan.data_offset != have.offset - header.data_offset:
                raise ContainerError(
                    f"tensor {have.name!r}: data_offsets must start at "
                    f"{want.offset - plan.data_offset}, not {have.offset - header.data_offset}"
                )
        if len(plan.tensors) != len(given):
            raise ContainerError(
                f"file must hold the {len(plan.tensors)} tensors of its geometry, not {len(given)}"
            )

    def _entry(self, g: Geometry) -> LayerEntry:
        stored = g.codebook != "" and not g.in_rom
        codebook = self._span(g.codebook) if stored else None
        return LayerEntry(g, self._span(f"{g.name}.stream"), codebook)

    def _span(self, tensor: str) -> Span:
        spec = self._specs[tensor]
        return Span(spec.offset, spec.nbytes)

    def tensor_bytes(self, tensor: str) -> NDArray[np.uint8]:
        """Bytes of any tensor, [nbytes] uint8, as they lie in the file.

        Its hash is checked the first time.
        """
        spec = self._specs[tensor]
        data = self._data[spec.offset : spec.end]
        if self._closed:
            raise ContainerError(f"{self.path}: file must be open, but it was closed")
        if tensor not in self._verified:
            if hashlib.sha256(data.data).hexdigest() != self._hashes[tensor]:
                raise ContainerError(
                    f"{self.path}: tensor {tensor!r}: data must match its sha256; "
                    "the file is damaged"
                )
            self._verified.add(tensor)
        return data

    def forget(self, tensor: str) -> None:
        """Give back the memory that a tensor takes while the file is mapped.

        It is read from the file again if need be; arrays stay valid.
        """
        if hasattr(mmap, "MADV_DONTNEED"):
            span = self._span(tensor)
            first = span.offset // mmap.PAGESIZE * mmap.PAGESIZE
            self._map.madvise(mmap.MADV_DONTNEED, first, span.offset + span.nbytes - first)

    def __enter__(self) -> "Container":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the file. Arrays that were returned stay valid."""
        self._closed = True
        self._data = np.empty(0, np.uint8)

    def verify(
        self, *, complete: bool = True, progress: Callable[[], object] | None = None
    ) -> None:
        """Check the sha256 of every tensor and decode every layer once.

        Parameters
        ----------
        complete : bool
            Refuse a file that names a codebook in ROM which was not given. Otherwise all but the
            weights of its layers is checked: their indices, and their padding.
        progress : callable, optional
            Called after each tensor, of :meth:`tensor_spans`, and once more after each layer.

        Raises
        ------
        ContainerError
            At the first tensor or layer that is wrong.
        """
        checked = progress or (lambda: None)
        for name in self._specs:
            self.tensor_bytes(name)
            checked()
        for entry in self.layers:
            g = entry.geometry
            if g.in_rom and g.codebook not in self._rom and not complete:
                self._sub_vectors(g, np.zeros((g.k, g.d), np.int8))
            else:
                self.stream_order(g.name)
            if g.group:
                self.group_scales(g.name)
            else:
                self.scale(g.name)
            checked()

    def geometry(self, name: str) -> Geometry:
        """Geometry of a layer."""
        return self._named(name).geometry

    def _named(self, name: str) -> LayerEntry:
        if name not in self._by_name:
            raise ContainerError(f"{self.path}: no layer is called {name!r}")
        return self._by_name[name]

    def codebook(self, name: str) -> NDArray[np.int8]:
        """Codebook of an ssvq or vq layer, [k, d] int8."""
        g = self._named(name).geometry
        if not g.codebook:
            raise ContainerError(f"{self.path}: layer {name!r}: method {g.method} has no codebook")
        if g.in_rom:
            book = self._rom_codebook(g)
        else:
            book = self.tensor_bytes(g.codebook).view(np.int8).reshape(g.k, g.d)
        if g.method == "ssvq" and int(book.min()) < 0:
            raise ContainerError(
                f"{self.path}: layer {name!r}: codebook must be non-negative, not {book.min()}"
            )
        return book

    def _rom_codebook(self, g: Geometry) -> NDArray[np.int8]:
        book = self._rom.get(g.codebook)
        if book is None:
            raise ContainerError(
                f"{self.path}: layer {g.name!r}: codebook {g.codebook} must be supplied, "
                "it is not in the file; give its array file (--rom)"
            )
        digest = hashlib.sha256(book.tobytes()).hexdigest()
        if book.shape != (g.k, g.d) or book.dtype != np.int8 or f"rom:{digest}" != g.codebook:
            raise ContainerError(
                f"{self.path}: layer {g.name!r}: codebook must be {g.codebook} as "
                f"[{g.k}, {g.d}] int8, not rom:{digest} as {list(book.shape)} {book.dtype}"
            )
        return book

    def scale(self, name: str) -> NDArray[np.float32]:
        """Scales of a layer, [1] or [O] float32 (empty for grouped methods).

        Where an ssvq or vq layer stores none, its scale is 1.
        """
        g = self._named(name).geometry
        if not g.scales:
            return np.ones(0 if g.group else 1, np.float32)
        at = self._scale_at[name]
        scale = self.tensor_bytes(SCALES).view("<f4")[at : at + g.scales].astype(np.float32)
        if not (np.abs(scale) <= SCALE_MAX).all():  # false for NaN
            raise ContainerError(
                f"{self.path}: layer {name!r}: scale must be finite and at most 2**120"
            )
        return scale

    def _grouped(self, name: str) -> Geometry:
        g = self._named(name).geometry
        if not g.group:
            raise ContainerError(f"{self.path}: layer {name!r}: method {g.method} has no groups")
        return g

    def group_scales(self, name: str) -> NDArray[np.float16]:
        """Group scales of a grouped layer, [O, ceil(I / group)] float16."""
        g = self._grouped(name)
        scales = self.tensor_bytes(f"{name}.group_scales").view("<f2").astype(np.float16)
        if not np.isfinite(scales).all():
            raise ContainerError(f"{self.path}: layer {name!r}: group_scales must be finite")
        return order.from_stream(scales, g.O, g.groups // g.O, g.tile)

    def group_zeros(self, name: str) -> NDArray[np.uint8]:
        """Group zeros of a grouped layer, [O, ceil(I / group)] uint8."""
        g = self._grouped(name)
        shape = (g.O, g.groups // g.O)
        if not g.zeros:
            return np.full(shape, 1 << (g.b - 1), np.uint8)
        zeros = self.tensor_bytes(f"{name}.group_zeros")
        if int(zeros.max()) >= 1 << g.b:
            raise ContainerError(
                f"{self.path}: layer {name!r}: group_zeros must be below {1 << g.b}, "
                f"not {zeros.max()}"
            )
        return order.from_stream(zeros, *shape, g.tile)

    def stream(self, name: str) -> NDArray[np.uint8]:
        """Packed stream of a layer, [stream_bytes] uint8, as it lies in the file."""
        return self.tensor_bytes(f"{self._named(name).geometry.name}.stream")

    def stream_order(self, name: str) -> NDArray[np.int8]:
        """Integer weights in stream order, [N * d] int8: what a decoder in hardware emits.

        Grouped methods give ``code - zero``. The filling of ragged sub-vectors is included.
        """
        g = self._named(name).geometry
        if g.k:
            return self._sub_vectors(g, self.codebook(name))
        try:
            codes = codec.decode_codes(g, self.stream(name))
        except ContainerError as error:
            raise self._located(error) from None
        if g.method == "int8":
            return codes.view(np.int8)
        zeros = order.spread(self.group_zeros(name), g)
        return (codes.astype(np.int16) - order.to_stream(zeros, g.tile)).astype(np.int8)

    def _sub_vectors(self, g: Geometry, codebook: NDArray[np.int8]) -> NDArray[np.int8]:
        """Integer weights of an ssvq or vq layer in stream order."""
        try:
            return codec.decode_subvectors(g, self.stream(g.name), codebook).reshape(-1)
        except ContainerError as error:
            raise self._located(error) from None

    def integers(self, name: str) -> NDArray[np.int8]:
        """Integer weights as a matrix, [O, I] int8 (I = taps times channels)."""
        g = self._named(name).geometry
        items = self.stream_order(name).reshape(g.N, g.d)
        return order.join(order.from_stream(items, *g.grid, g.tile), (g.O, g.I), g.axis)

    def weight(self, name: str) -> NDArray[np.float32]:
        """Weights as the module holds them: ``geometry.shape``, or its transpose for ``linear_t``.

        Float32. One multiplication per weight (integer times scale), so every correct decoder
        gives the same bits.
        """
        g = self._named(name).geometry
        integers = self.integers(name).astype(np.float32)
        if g.group:
            scale = order.spread(self.group_scales(name).astype(np.float32), g)
        else:
            scale = self.scale(name)[:, None]
        weight = order.from_matrix(integers * scale, g.shape, g.axis)
        return np.ascontiguousarray(weight.T if g.op == "linear_t" else weight)

    @property
    def kept_names(self) -> tuple[str, ...]:
        """Names of the tensors stored as they are, in file order."""
        return tuple(self.kept_shapes)

    def runtime_facts(self) -> dict[str, list[dict[str, Any]]]:
        """What documents say of the parts that remain at run time; nothing if there are none.

        ``runtime`` lists them, each with its ``kind``, ``layers``, ``bytes`` in the file, and
        ``macs_per_token`` in all its layers together
        (:meth:`vq.container.runtime.RuntimePart.macs_per_token`).
        """
        layers = {name: entry.geometry for name, entry in self._by_name.items()}
        rows = [
            {
                "kind": part.kind,
                "layers": list(part.layers),
                "bytes": part.nbytes,
                "macs_per_token": part.macs_per_token(layers),
            }
            for part in self.runtime
        ]
        return {"runtime": rows} if rows else {}

    def is_own(self, name: str) -> bool:
        """Whether a kept tensor is one of the model's state.

        Those of an integer graph, of what remains at run time, and the tokenizer are not.
        """
        if name == TOKENIZER or name.startswith(INTEGER_PREFIX):
            return False
        return self.layout != RUNTIME_LAYOUT or not is_runtime_tensor(name)

    def require_plain(self, what: str) -> None:
        """Refuse a file in which parts remain at run time.

        Parameters
        ----------
        what : str
            What cannot have them, as the error says it.

        Raises
        ------
        ConfigError
        """
        if self.runtime:
            kinds = ", ".join(dict.fromkeys(part.kind for part in self.runtime))
            raise ConfigError(
                f"{self.path}: {what} must be made of a file whose weights are all there is, but "
                f"parts remain at run time ({kinds}), without which its weights mean something "
                "else; quantise by a method that leaves none"
            )

    def kept(self, name: str) -> Kept:
        """A tensor stored as it is."""
        if name not in self.kept_shapes:
            raise ContainerError(f"{self.path}: no kept tensor is called {name!r}")
        spec = self._specs[name]
        return Kept(spec.dtype, spec.shape, self.tensor_bytes(name).tobytes())

    def tensor_spans(self) -> dict[str, Span]:
        """Every tensor of the file, padding included, in file order."""
        return {name: self._span(name) for name in self._specs}

    def image(self) -> NDArray[np.uint8]:
        """The whole file as read-only bytes: the memory image of an accelerator."""
        return self._data
