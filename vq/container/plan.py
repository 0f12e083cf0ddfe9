"""Where every tensor of a file will lie, from shapes alone: no weight is needed.

The writer follows this plan, and a planner can ask it for the exact size of a file that does
not exist yet.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vq.container.constants import GRANULE_BYTES, LAYOUT, RUNTIME_LAYOUT, RUNTIME_PREFIX
from vq.container.geometry import Geometry, is_text, round_up
from vq.container.header import (
    TensorSpec,
    build_header,
    canonical_json,
    is_sha256,
    tensor_problem,
)
from vq.errors import ContainerError, bulleted

__all__ = ["FilePlan", "Provenance", "plan_file"]

SCALES = "_scales"
_NO_HASH = "0" * 64


@dataclass(frozen=True)
class Provenance:
    """What a file says about its making; every field has a width that does not depend on data.

    Attributes
    ----------
    tool : str
        Name and version of the writer.
    recipe : str
        The recipe as JSON text.
    seed : int
        Seed of the compression, below 2**64.
    calibration : str
        sha256 of the calibration data as 64 hexadecimal digits; all zeros if there was none.
    """

    tool: str = "signbook"
    recipe: str = "{}"
    seed: int = 0
    calibration: str = _NO_HASH

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**64:
            raise ContainerError(f"metadata 'seed' must be below 2**64, not {self.seed}")
        if not is_sha256(self.calibration):
            raise ContainerError(
                f"metadata 'calibration' must be a sha256 of 64 digits, not {self.calibration!r}"
            )


@dataclass(frozen=True)
class FilePlan:
    """Tensors in file order, and a header of the final length whose hashes are still zero."""

    tensors: list[TensorSpec]
    data_offset: int
    geometry_json: str
    provenance: Provenance
    layout: str = LAYOUT

    @property
    def file_bytes(self) -> int:
        """Exact size of the file."""
        return self.tensors[-1].end if self.tensors else self.data_offset

    def header(self, hashes: Mapping[str, str], geometry_hash: str) -> bytes:
        """Serialise the header with the hashes of the tensors, each 64 digits."""
        p = self.provenance
        metadata = {
            "layout": self.layout,
            "tool": p.tool,
            "recipe": p.recipe,
            "seed": f"{p.seed:020d}",
            "calibration": p.calibration,
            "geometry": self.geometry_json,
            "geometry_sha256": geometry_hash,
            "sha256": canonical_json({t.name: hashes[t.name] for t in self.tensors}),
        }
        return build_header(self.tensors, self.data_offset, metadata)


def plan_file(
    layers: Sequence[Geometry],
    kept: Mapping[str, tuple[str, tuple[int, ...]]],
    provenance: Provenance,
) -> FilePlan:
    """Lay out a file.

    Parameters
    ----------
    layers : sequence of Geometry
        Compressed layers in execution order.
    kept : mapping of name to (dtype, shape)
        Tensors stored as they are; those that remain at run time decide the layout.
    provenance : Provenance

    Raises
    ------
    ContainerError
        If two tensors would have the same name, a name or a kept tensor cannot be stored, or a
        shared codebook has two shapes.
    """
    wanted = _tensors(layers, kept)
    _check(wanted, layers)
    rows: list[tuple[str, str, tuple[int, ...], int]] = []
    at = pads = 0
    for spec in wanted:
        gap = round_up(at, GRANULE_BYTES) - at
        if gap:
            rows.append((f"_pad.{pads}", "U8", (gap,), at))
            pads, at = pads + 1, at + gap
        rows.append((spec.name, spec.dtype, spec.shape, at))
        at += spec.nbytes
    geometry = {
        "layers": [g.to_json() for g in layers],
        "kept": [[name, dtype, list(shape)] for name, (dtype, shape) in kept.items()],
    }
    text = canonical_json(geometry)
    remains = any(name.startswith(RUNTIME_PREFIX) for name in kept)
    layout = RUNTIME_LAYOUT if remains else LAYOUT
    # Offsets in the header count from the data section, so its length does not depend on itself.
    relative = FilePlan([TensorSpec(*row) for row in rows], 0, text, provenance, layout)
    empty = dict.fromkeys((t.name for t in relative.tensors), _NO_HASH)
    base = len(relative.header(empty, _NO_HASH))
    tensors = [TensorSpec(n, d, s, base + offset) for n, d, s, offset in rows]
    return FilePlan(tensors, base, text, provenance, layout)


def _tensors(
    layers: Sequence[Geometry], kept: Mapping[str, tuple[str, tuple[int, ...]]]
) -> list[TensorSpec]:
    out = []
    scales = sum(g.scales for g in layers)
    if scales:
        out.append(TensorSpec(SCALES, "F32", (scales,), 0))
    books: set[str] = set()
    for g in layers:
        if g.codebook and not g.in_rom and g.codebook not in books:
            books.add(g.codebook)
            out.append(TensorSpec(g.codebook, "I8", (g.k, g.d), 0))
        if g.group:
            out.append(TensorSpec(f"{g.name}.group_scales", "F16", (g.groups,), 0))
            if g.zeros:
                out.append(TensorSpec(f"{g.name}.group_zeros", "U8", (g.groups,), 0))
        out.append(TensorSpec(f"{g.name}.stream", "U8", (g.stream_bytes,), 0))
    out.extend(TensorSpec(name, dtype, shape, 0) for name, (dtype, shape) in kept.items())
    return out


def _check(wanted: Sequence[TensorSpec], layers: Sequence[Geometry]) -> None:
    problems = []
    seen: set[str] = set()
    for spec in wanted:
        if spec.name in seen:
            problems.append(f"tensor {spec.name!r} must appear once, not twice")
        if spec.name.startswith(("_pad.", "__metadata__")):
            problems.append(f"tensor {spec.name!r} must not have a reserved name")
        if not is_text(spec.name):
            problems.append(f"tensor {spec.name!r} must be named by non-empty text")
        if problem := tensor_problem(spec.dtype, spec.shape):
            problems.append(f"tensor {spec.name!r}: {problem}")
        seen.add(spec.name)
    books: dict[str, tuple[int, int]] = {}
    for g in layers:
        if g.codebook and books.setdefault(g.codebook, (g.k, g.d)) != (g.k, g.d):
            problems.append(f"codebook {g.codebook!r} must have one shape, not two")
    if problems:
        raise ContainerError(bulleted("container", problems))
