"""The metadata strings of a file, read back from untrusted text."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass

from vq.container.constants import LAYOUT, LAYOUTS, RUNTIME_LAYOUT, RUNTIME_PREFIX
from vq.container.geometry import Geometry
from vq.container.header import is_sha256, parse_json
from vq.container.plan import Provenance
from vq.errors import ContainerError

__all__ = ["Metadata", "parse_metadata"]

_KEYS = frozenset(
    ("layout", "tool", "recipe", "seed", "calibration", "geometry", "geometry_sha256", "sha256")
)
_SEED_DIGITS = 20


@dataclass(frozen=True)
class Metadata:
    """What the strings mean.

    Attributes
    ----------
    provenance : Provenance
    layers : list of Geometry
        In execution order.
    kept : dict of name to (dtype, shape)
        Tensors stored as they are, in file order.
    hashes : dict of tensor name to its sha256, 64 hexadecimal digits
    layout : str
    """

    provenance: Provenance
    layers: list[Geometry]
    kept: dict[str, tuple[str, tuple[int, ...]]]
    hashes: dict[str, str]
    layout: str


def parse_metadata(metadata: dict[str, str], tensors: Collection[str]) -> Metadata:
    """Check and read the metadata of a file that holds ``tensors``.

    Raises
    ------
    ContainerError
        If the layout is unknown, a key is missing or unknown, or a value is malformed.
    """
    layout = metadata.get("layout")
    if layout not in LAYOUTS:
        known = " or ".join(map(repr, LAYOUTS))
        raise ContainerError(
            f"layout must be {known}, not {layout!r}; a newer signbook may read it"
        )
    for key in sorted(_KEYS ^ metadata.keys()):
        raise ContainerError(f"metadata {key!r} is {'missing' if key in _KEYS else 'unknown'}")
    digest = hashlib.sha256(metadata["geometry"].encode()).hexdigest()
    if digest != metadata["geometry_sha256"]:
        raise ContainerError("geometry must match its sha256; the file is damaged")
    layers, kept = _geometry(parse_json(metadata["geometry"], "geometry"))
    hashes = _hashes(parse_json(metadata["sha256"], "metadata 'sha256'"), tensors)
    if layout == RUNTIME_LAYOUT and not any(name.startswith(RUNTIME_PREFIX) for name in kept):
        raise ContainerError(
            f"layout must be {LAYOUT!r} of a file in which nothing remains at run time, not "
            f"{layout!r}"
        )
    return Metadata(_provenance(metadata), layers, kept, hashes, layout)


def _provenance(metadata: dict[str, str]) -> Provenance:
    seed = metadata["seed"]
    if len(seed) != _SEED_DIGITS or not (seed.isascii() and seed.isdigit()):
        raise ContainerError(f"metadata 'seed' must be {_SEED_DIGITS} digits, not {seed!r}")
    return Provenance(metadata["tool"], metadata["recipe"], int(seed), metadata["calibration"])


def _geometry(
    document: object,
) -> tuple[list[Geometry], dict[str, tuple[str, tuple[int, ...]]]]:
    if not isinstance(document, dict) or document.keys() != {"layers", "kept"}:
        raise ContainerError("geometry must have exactly the fields layers and kept")
    layers, rows = document["layers"], document["kept"]
    if not isinstance(layers, list) or not isinstance(rows, list):
        raise ContainerError("geometry fields layers and kept must be lists")
    kept: dict[str, tuple[str, tuple[int, ...]]] = {}
    for row in rows:
        match row:
            case [str(name), str(dtype), list(shape)] if all(type(n) is int for n in shape):
                kept[name] = (dtype, tuple(shape))
            case _:
                raise ContainerError("geometry field kept must list [name, dtype, shape]")
    if len(kept) != len(rows):
        raise ContainerError("geometry field kept must name every tensor once")
    return [Geometry.from_json(fields) for fields in layers], kept


def _hashes(document: object, tensors: Collection[str]) -> dict[str, str]:
    if not isinstance(document, dict) or document.keys() != set(tensors):
        raise ContainerError("metadata 'sha256' must name every tensor of the file")
    for name, digest in document.items():
        if not is_sha256(digest):
            raise ContainerError(f"tensor {name!r}: sha256 must be 64 hexadecimal digits")
    return document
