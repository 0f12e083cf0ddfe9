"""Write a container: temporary file, hashes filled in at the end, then renamed."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vq.container import codec, order
from vq.container.constants import GROUPED_BITS, SCALE_MAX, TILE_OUTPUTS
from vq.container.geometry import Geometry
from vq.container.header import is_pad
from vq.container.plan import SCALES, FilePlan, Provenance, plan_file
from vq.container.runtime import PARTS, parse_parts
from vq.errors import ContainerError, OutputError

__all__ = ["Kept", "Layer", "atomic_file", "atomic_files", "write_container", "write_planned"]

_NUMPY_TAGS = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16",
    "uint32": "U32", "int32": "I32", "uint64": "U64", "int64": "I64",
    "float16": "F16", "float32": "F32", "float64": "F64",
}  # fmt: skip


@dataclass(frozen=True)
class Kept:
    """A tensor stored as it is.

    ``dtype`` is a safetensors name, so that types numpy lacks (BF16) pass through as bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def from_numpy(cls, array: NDArray[np.generic]) -> "Kept":
        """Keep a numpy array; any layout, little-endian on disk."""
        tag = _NUMPY_TAGS.get(array.dtype.name)
        if tag is None:
            raise ContainerError(f"kept tensor's dtype must be storable, not {array.dtype}")
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        return cls(tag, array.shape, little.tobytes())


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer, ready to be written. Use the constructor named after its method.

    Attributes
    ----------
    geometry : Geometry
    stream : [geometry.stream_bytes] uint8
    scale : [geometry.scales] float32
    codebook : [k, d] int8 or None
    group_scales, group_zeros : [geometry.groups] float16, uint8, or None
    """

    geometry: Geometry
    stream: NDArray[np.uint8]
    scale: NDArray[np.float32]
    codebook: NDArray[np.int8] | None = None
    group_scales: NDArray[np.float16] | None = None
    group_zeros: NDArray[np.uint8] | None = None

    @classmethod
    def ssvq(
        cls,
        name: str,
        *,
        codebook: NDArray[np.int8],
        indices: NDArray[np.integer],
        signs: NDArray[np.bool_],
        scale: NDArray[np.float32],
        shape: tuple[int, ...],
        op: str = "linear",
        axis: str = "in",
        tile_outputs: int = TILE_OUTPUTS,
        parity: bool = False,
        codebook_name: str | None = None,
    ) -> "Layer":
        """Sign-split layer.

        Parameters
        ----------
        codebook : [k, d] int8 magnitudes, 0 to 127
        indices : [N] integers below k, in stream order
        signs : [N, d] bool in stream order, True where negative
        scale : [1] or [O] float32, or [0]: the weights are the integers themselves
        shape : shape of the module's weight, outputs first
        parity : store d - 1 signs; every row of ``signs`` must then hold an even number of True
        codebook_name : tensor to share among layers, or ``rom:<sha256>``; default ``name.codebook``

        Raises
        ------
        ContainerError
            If a value does not fit its field.
        """
        k, d = _rows(name, codebook)
        g = Geometry(
            name, op, tuple(shape), "ssvq", axis, tile_outputs, d, k,
            d - parity, len(np.atleast_1d(scale)), codebook_name or f"{name}.codebook",
        )  # fmt: skip
        _require(g, signs.dtype == np.bool_, "signs", "bool", str(signs.dtype))
        _require(g, signs.shape == (g.N, d), "signs", f"[{g.N}, {d}]", list(signs.shape))
        _require(g, int(codebook.min()) >= 0, "codebook", "non-negative", int(codebook.min()))
        if parity:
            odd = int((signs.sum(axis=1) % 2).sum())
            _require(g, odd == 0, "signs", "of even parity in every sub-vector", f"{odd} odd")
        return cls._coded(g, codebook, indices, signs, scale)

    @classmethod
    def vq(
        cls,
        name: str,
        *,
        codebook: NDArray[np.int8],
        indices: NDArray[np.integer],
        scale: NDArray[np.float32],
        shape: tuple[int, ...],
        op: str = "linear",
        axis: str = "in",
        tile_outputs: int = TILE_OUTPUTS,
        codebook_name: str | None = None,
    ) -> "Layer":
        """Plain vector-quantised layer with a signed codebook; parameters as :meth:`ssvq`."""
        k, d = _rows(name, codebook)
        g = Geometry(
            name, op, tuple(shape), "vq", axis, tile_outputs, d, k,
            0, len(np.atleast_1d(scale)), codebook_name or f"{name}.codebook",
        )  # fmt: skip
        return cls._coded(g, codebook, indices, None, scale)

    @classmethod
    def _coded(
        cls,
        g: Geometry,
        codebook: NDArray[np.int8],
        indices: NDArray[np.integer],
        signs: NDArray[np.bool_] | None,
        scale: NDArray[np.float32],
    ) -> "Layer":
        _require(g, codebook.dtype == np.int8, "codebook", "int8", str(codebook.dtype))
        book = np.ascontiguousarray(codebook)
        if g.in_rom:
            digest = f"rom:{hashlib.sha256(book.tobytes()).hexdigest()}"
            _require(g, digest == g.codebook, "codebook", g.codebook, digest)
        integer = np.issubdtype(indices.dtype, np.integer)
        _require(g, integer, "indices", "integers", str(indices.dtype))
        _require(g, indices.shape == (g.N,), "indices", f"[{g.N}]", list(indices.shape))
        for given in (int(indices.min()), int(indices.max())):
            _require(g, 0 <= given < g.k, "indices", f"below k = {g.k}", given)
        stream = codec.encode_subvectors(g, indices, signs)
        return cls(g, stream, _scale(g, scale), book)

    @classmethod
    def int8(
        cls,
        name: str,
        *,
        integers: NDArray[np.int8],
        scale: NDArray[np.float32],
        shape: tuple[int, ...] | None = None,
        op: str = "linear",
        tile_outputs: int = TILE_OUTPUTS,
    ) -> "Layer":
        """Eight-bit layer: ``integers`` [O, I] int8 and ``scale`` [1] or [O] float32."""
        shape = tuple(shape or integers.shape)
        scales = len(np.atleast_1d(scale))
        g = Geometry(name, op, shape, "int8", tile_outputs=tile_outputs, scales=scales)
        _require(g, integers.dtype == np.int8, "integers", "int8", str(integers.dtype))
        _require(
            g, integers.shape == (g.O, g.I), "integers", f"[{g.O}, {g.I}]", list(integers.shape)
        )
        codes = order.to_stream(integers, g.tile).view(np.uint8)
        return cls(g, codec.encode_codes(g, codes), _scale(g, scale))

    @classmethod
    def grouped(
        cls,
        name: str,
        *,
        method: str,
        codes: NDArray[np.uint8],
        group_scales: NDArray[np.float16],
        group_zeros: NDArray[np.uint8] | None,
        group: int,
        shape: tuple[int, ...] | None = None,
        op: str = "linear",
        tile_outputs: int = TILE_OUTPUTS,
    ) -> "Layer":
        """Grouped scalar layer (int4, int3, int2).

        Parameters
        ----------
        codes : [O, I] uint8 below ``2**bits``; the weight is ``(code - zero) * scale``
        group_scales : [O, ceil(I / group)] float16
        group_zeros : the same shape in uint8, or None for the fixed zero ``2**(bits - 1)``
        group : weights along I that share a scale
        """
        shape = tuple(shape or codes.shape)
        g = Geometry(
            name, op, shape, method, tile_outputs=tile_outputs,
            scales=0, group=group, zeros=group_zeros is not None,
        )  # fmt: skip
        _require(g, method in GROUPED_BITS, "method", "a grouped one", method)
        _require(g, codes.dtype == np.uint8, "codes", "uint8", str(codes.dtype))
        _require(g, codes.shape == (g.O, g.I), "codes", f"[{g.O}, {g.I}]", list(codes.shape))
        top = int(codes.max())
        _require(g, top < 1 << g.b, "codes", f"below {1 << g.b}", top)
        want = (g.O, g.groups // g.O)
        given = {"group_scales": (group_scales, "float16"), "group_zeros": (group_zeros, "uint8")}
        for field, (values, dtype) in given.items():
            if values is not None:
                _require(g, values.dtype == dtype, field, dtype, str(values.dtype))
                _require(g, values.shape == want, field, f"{list(want)}", list(values.shape))
        if group_zeros is not None:
            top = int(group_zeros.max())
            _require(g, top < 1 << g.b, "group_zeros", f"below {1 << g.b}", top)
        finite = bool(np.isfinite(group_scales).all())
        _require(g, finite, "group_scales", "finite", "NaN or infinity")
        stream = codec.encode_codes(g, order.to_stream(codes, g.tile))
        zeros = None if group_zeros is None else order.to_stream(group_zeros, g.tile)
        scales = order.to_stream(group_scales, g.tile)
        return cls(g, stream, np.empty(0, np.float32), None, scales, zeros)

    @classmethod
    def scalar(
        cls,
        g: Geometry,
        integers: NDArray[np.int8],
        scale: NDArray[np.floating],
        zero: NDArray[np.uint8] | None = None,
    ) -> "Layer":
        """Scalar layer of any kind (int8, int4, int3, int2), from integers and their grid.

        Parameters
        ----------
        g : Geometry
        integers : [O, I] int8
            Codes minus zeros: the weight is ``integer * scale``.
        scale : [O, ceil(I / group)], or [O, 1] for int8
            Numbers that fp16 holds, or fp32 for int8.
        zero : uint8, shaped like ``scale``, or None for the fixed zero ``2**(bits - 1)``

        Raises
        ------
        ContainerError
            If a value does not fit its field.
        """
        place: dict[str, Any] = {"shape": g.shape, "op": g.op, "tile_outputs": g.tile_outputs}
        if not g.group:
            own = scale[:, 0].astype(np.float32)
            return cls.int8(g.name, integers=integers, scale=own, **place)
        middle = 1 << (g.b - 1) if zero is None else order.spread(zero, g)
        return cls.grouped(
            g.name,
            method=g.method,
            codes=(integers + middle).astype(np.uint8),
            group_scales=scale.astype(np.float16),
            group_zeros=zero,
            group=g.group,
            **place,
        )


def _rows(name: str, codebook: NDArray[np.int8]) -> tuple[int, int]:
    if codebook.ndim != 2:
        raise ContainerError(f"layer {name!r}: codebook must be [k, d], not {list(codebook.shape)}")
    return codebook.shape[0], codebook.shape[1]


def _require(g: Geometry, holds: bool, field: str, requirement: str, given: object) -> None:
    if not holds:
        raise ContainerError(f"layer {g.name!r}: {field} must be {requirement}, not {given}")


def _scale(g: Geometry, scale: NDArray[np.float32]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused
        flat = np.atleast_1d(np.asarray(scale, np.float32))
    _require(g, flat.shape == (g.scales,), "scale", f"[{g.scales}]", list(flat.shape))
    bounded = bool((np.abs(flat) <= SCALE_MAX).all())
    _require(g, bounded, "scale", "finite and at most 2**120", "NaN, infinity or more")
    return flat


def write_container(
    path: str | os.PathLike[str],
    layers: Sequence[Layer],
    kept: Mapping[str, Kept] | None = None,
    provenance: Provenance | None = None,
) -> FilePlan:
    """Write ``layers`` and ``kept`` tensors to ``path``.

    The file appears under its name only when it is complete; a file of that name that existed
    before stays untouched until then, and if anything fails.

    Raises
    ------
    ContainerError
        If names collide or layers that share a codebook disagree about it.
    OutputError
        If the place cannot be written (no such folder, no permission, disk full).
    """
    kept = kept or {}
    if PARTS in kept:
        shapes = {name: (t.dtype, t.shape) for name, t in kept.items()}
        parse_parts(kept[PARTS].data, shapes, {x.geometry.name: x.geometry for x in layers})
    plan = plan_file(
        [layer.geometry for layer in layers],
        {name: (t.dtype, t.shape) for name, t in kept.items()},
        provenance or Provenance(),
    )
    contents = _contents(layers, kept)
    for tensor in plan.tensors:
        given = len(contents.get(tensor.name, b""))
        if given != tensor.nbytes and not is_pad(tensor.name):
            raise ContainerError(
                f"tensor {tensor.name!r}: data must be {tensor.nbytes} bytes, not {given}"
            )
    write_planned(path, plan, contents.__getitem__)
    return plan


def write_planned(
    path: str | os.PathLike[str], plan: FilePlan, content: Callable[[str], Any]
) -> None:
    """Write a file that is planned, one tensor at a time; see :func:`write_container`.

    Parameters
    ----------
    path : path
    plan : FilePlan
    content : callable
        Gives the bytes of a tensor by its name, each asked for once, in file order. Padding is not
        asked for.

    Raises
    ------
    OutputError
        If the place cannot be written.
    """
    geometry_hash = hashlib.sha256(plan.geometry_json.encode()).hexdigest()
    with atomic_file(path) as file:
        file.seek(plan.data_offset)
        hashes = {}
        for tensor in plan.tensors:
            data = bytes(tensor.nbytes) if is_pad(tensor.name) else content(tensor.name)
            hashes[tensor.name] = hashlib.sha256(data).hexdigest()
            file.write(data)
        file.seek(0)
        file.write(plan.header(hashes, geometry_hash))


def _contents(layers: Sequence[Layer], kept: Mapping[str, Kept]) -> dict[str, bytes | memoryview]:
    out: dict[str, bytes | memoryview] = {}

    def put(name: str, array: NDArray[np.generic]) -> None:
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        out[name] = little.reshape(-1).view(np.uint8).data

    put(SCALES, np.concatenate([layer.scale for layer in layers] or [np.empty(0, np.float32)]))
    for layer in layers:
        g = layer.geometry
        put(f"{g.name}.stream", layer.stream)
        if layer.codebook is not None:
            book = layer.codebook.reshape(-1).view(np.uint8).data
            if out.setdefault(g.codebook, book) != book:
                raise ContainerError(
                    f"layer {g.name!r}: codebook must equal the shared {g.codebook!r}"
                )
        if layer.group_scales is not None:
            put(f"{g.name}.group_scales", layer.group_scales)
        if layer.group_zeros is not None:
            put(f"{g.name}.group_zeros", layer.group_zeros)
    out.update((name, tensor.data) for name, tensor in kept.items())
    return out


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a temporary file that takes the name ``path`` when the block ends without an error.

    Raises
    ------
    OutputError
        If it cannot be created, written or renamed; ``path`` is then as it was.
    """
    with atomic_files([path]) as (file,):
        yield file


@contextmanager
def atomic_files(paths: Iterable[str | os.PathLike[str]]) -> Iterator[list[BinaryIO]]:
    """Open temporary files that take the names ``paths`` together: all are on the disk before.

    Raises
    ------
    OutputError
        As :func:`atomic_file`; all are then as they were.
    """
    targets = [Path(path) for path in paths]
    with ExitStack() as stack:
        opened = [stack.enter_context(_temporary_file(target)) for target in targets]
        with _refusing(*targets):
            yield [file for _, file in opened]
        for target, (temporary, file) in zip(targets, opened, strict=True):
            with _refusing(target):
                file.flush()
                os.fsync(file.fileno())
                # mkstemp makes private files; give this one what a plain open() would have given.
                mask = os.umask(0)
                os.umask(mask)
                temporary.chmod(0o666 & ~mask)
        for target, (temporary, _) in zip(targets, opened, strict=True):
            with _refusing(target):
                temporary.replace(target)


@contextmanager
def _temporary_file(target: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A file beside ``target`` that goes again, unless it has another name by then."""
    with _refusing(target):
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    file = os.fdopen(handle, "wb")
    try:
        yield Path(name), file
    finally:
        with suppress(OSError):  # what is left to write finds no room: that is said already
            file.close()
        with suppress(OSError):
            os.unlink(name)


@contextmanager
def _refusing(*targets: Path) -> Iterator[None]:
    try:
        yield
    except OutputError:  # of another file
        raise
    except OSError as error:
        raise OutputError(
            f"{', '.join(map(str, targets))}: must be writable, not refused "
            f"({error.strerror or error}); nothing was changed"
        ) from error
