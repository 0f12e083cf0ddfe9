"""Parts that remain in a model at run time, as a file describes them, and what they cost.

The description is JSON in the tensor ``_runtime.parts``; the tensors of part ``n`` are called
``_runtime.n.FIELD``. Only files of the layout ``vqstream/2`` have them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from vq.container.constants import DTYPE_BYTES, RUNTIME_PREFIX
from vq.container.geometry import Geometry
from vq.container.header import canonical_json, parse_json
from vq.errors import ContainerError

__all__ = [
    "PARTS",
    "RuntimePart",
    "describe",
    "is_runtime_tensor",
    "parse_parts",
    "tensor_name",
]

#: Name of the tensor that describes all of them.
PARTS = RUNTIME_PREFIX + "parts"
#: Settings of each kind, and the tensors that it must, and may, have.
_KINDS: dict[str, tuple[dict[str, type], set[str], set[str]]] = {
    "transform": ({}, {"first"}, {"scale", "order", "second"}),
    "rounding": ({"bits": int, "symmetric": bool}, set(), {"clip", "scale"}),
    "prefix": ({"heads": int}, {"tokens", "keys", "values"}, set()),
    "clock": ({}, {"times"}, set()),
    "timed_rounding": ({"bits": int, "symmetric": bool}, {"scale"}, {"zero"}),
    "time_table": ({"classes": int}, {"table"}, set()),
}
#: Kinds that look rows up by what a clock says, and the tensor that has them.
_ROWS = {"timed_rounding": "scale", "time_table": "table"}
_TIMED_OPS = ("linear", "linear_t", "conv1d", "conv2d")
_FLOATS = ("F16", "BF16", "F32", "F64")
_BITS = range(2, 9)


@dataclass(frozen=True)
class RuntimePart:
    """One part.

    Attributes
    ----------
    kind : str
        "transform": the inputs of linears are multiplied by a block-diagonal matrix, permuted, and
        multiplied by another one. "rounding": the inputs of linears are rounded, every token on a
        grid of its own or, with a ``scale``, all on one. "prefix": attention layers see keys and
        values of tokens in front. "clock": a network's calls are at one of these time steps.
        "timed_rounding": the inputs of a layer are rounded on the grid of that step.
        "time_table": what stands here instead of a module gives a row for that step.
    layers : tuple of str
        Compressed linears, and for timed roundings convolutions; modules whose attention has the
        prefix; the network of a clock; modules that a table stands for.
    settings : mapping of str to int
        ``bits`` and ``symmetric`` of a rounding, ``heads`` (of queries) of a prefix, ``classes``
        that a time table has a row for in every step, 0 if it depends on none.
    tensors : mapping of field to (dtype, shape)
    """

    kind: str
    layers: tuple[str, ...]
    settings: Mapping[str, int]
    tensors: Mapping[str, tuple[str, tuple[int, ...]]]

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        return sum(DTYPE_BYTES[dtype] * prod(shape) for dtype, shape in self.tensors.values())

    def macs_per_token(self, layers: Mapping[str, Geometry]) -> int:
        """Multiplications for every token, in all its layers together.

        A transform works anew in every linear that it stands before; a rounding multiplies every
        input by its scale, what finds that scale is not counted; a prefix adds its keys to the
        products with queries, and its values to the sums. A timed rounding multiplies every channel
        that a layer reads. Clocks and time tables look up, and multiply nothing.

        Parameters
        ----------
        layers : mapping of name to Geometry
            The compressed ones.
        """
        if self.kind == "prefix":
            _, _, tokens, size = self.tensors["keys"][1]
            return 2 * len(self.layers) * self.settings["heads"] * tokens * size
        if self.kind in ("clock", "time_table"):
            return 0
        if self.kind == "timed_rounding":
            return sum(layers[name].shape[1] for name in self.layers)
        inputs = sum(layers[name].I for name in self.layers)
        if self.kind == "rounding":
            return inputs
        blocks = [self.tensors[f][1][-1] for f in ("first", "second") if f in self.tensors]
        return inputs * sum(blocks)


def is_runtime_tensor(name: str) -> bool:
    """Whether a kept tensor of a ``vqstream/2`` file belongs to a part and not to the model."""
    return name.startswith(RUNTIME_PREFIX)


def tensor_name(part: int, field: str) -> str:
    """Name of a part's tensor in the file."""
    return f"{RUNTIME_PREFIX}{part}.{field}"


def describe(parts: Sequence[RuntimePart]) -> bytes:
    """Contents of the tensor ``_runtime.parts``."""
    rows = [{"kind": part.kind, "layers": list(part.layers), **part.settings} for part in parts]
    return canonical_json(rows).encode()


def parse_parts(
    text: bytes,
    kept: Mapping[str, tuple[str, tuple[int, ...]]],
    layers: Mapping[str, Geometry],
) -> tuple[RuntimePart, ...]:
    """Read and check the description of a file's parts.

    Parameters
    ----------
    text : bytes
        Of the tensor ``_runtime.parts``.
    kept : mapping of name to (dtype, shape)
        All kept tensors of the file.
    layers : mapping of name to Geometry

    Raises
    ------
    ContainerError
    """
    rows = parse_json(text, f"tensor {PARTS!r}")
    if not isinstance(rows, list) or not rows:
        raise ContainerError(f"tensor {PARTS!r} must list at least one part")
    given = {name for name in kept if is_runtime_tensor(name)} - {PARTS}
    parts = tuple(_part(i, row, kept, layers) for i, row in enumerate(rows))
    known = {tensor_name(i, field) for i, part in enumerate(parts) for field in part.tensors}
    for name in sorted(given - known):
        raise ContainerError(f"tensor {name!r} must belong to a part that remains at run time")
    for kind in _KINDS:
        names = [name for part in parts if part.kind == kind for name in part.layers]
        for name in {name for name in names if names.count(name) > 1}:
            raise ContainerError(f"layer {name!r} must be in one {kind}, not in several")
    if problem := _together(parts, [*layers, *(n for n in kept if not is_runtime_tensor(n))]):
        raise ContainerError(f"tensor {PARTS!r}: {problem}")
    if canonical_json(rows).encode() != text:
        raise ContainerError(f"tensor {PARTS!r} must be canonical JSON")
    return parts


def _part(
    number: int,
    row: Any,
    kept: Mapping[str, tuple[str, tuple[int, ...]]],
    layers: Mapping[str, Geometry],
) -> RuntimePart:
    where = f"tensor {PARTS!r}: part {number}"
    kind = row.get("kind") if isinstance(row, dict) else None
    if kind not in _KINDS:
        raise ContainerError(
            f"{where}: kind must be one of {', '.join(_KINDS)}, not {kind!r}; a newer signbook may "
            "read it"
        )
    settings, needed, possible = _KINDS[kind]
    names = row.get("layers")
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise ContainerError(f"{where}: layers must be a list of names")
    if row.keys() != {"kind", "layers", *settings}:
        raise ContainerError(f"{where}: must have exactly kind, layers{_listed(settings)}")
    for name, wanted in settings.items():
        if type(row[name]) is not wanted:
            raise ContainerError(f"{where}: {name} must be {wanted.__name__}, not {row[name]!r}")
    prefix = tensor_name(number, "")
    tensors = {n.removeprefix(prefix): kept[n] for n in kept if n.startswith(prefix)}
    if not needed <= tensors.keys() <= needed | possible:
        raise ContainerError(
            f"{where}: its tensors must be {', '.join(sorted(needed | possible))}, not "
            f"{', '.join(sorted(tensors)) or 'none'}"
        )
    part = RuntimePart(kind, tuple(names), {s: row[s] for s in settings}, tensors)
    if problem := _problem(part, layers):
        raise ContainerError(f"{where}: {problem}")
    return part


def _together(parts: Sequence[RuntimePart], held: Sequence[str]) -> str | None:
    """What is wrong with parts that go by a time step, as a whole."""
    clocks = [part for part in parts if part.kind == "clock"]
    timed = [part for part in parts if part.kind in _ROWS]
    if len(clocks) != bool(timed):
        return f"there must be {int(bool(timed))} clock, not {len(clocks)}"
    for part in timed:
        ((steps,), shape) = clocks[0].tensors["times"][1], part.tensors[_ROWS[part.kind]][1]
        allowed = shape[0] in (1, steps) if part.kind == "time_table" else shape[0] <= steps
        if not allowed:
            return f"{part.kind} must have 1 to {steps} rows, the time steps, not {shape[0]}"
    rounded = [n for part in parts if part.kind.endswith("rounding") for n in part.layers]
    if twice := next((name for name in rounded if rounded.count(name) > 1), None):
        return f"layer {twice!r} must be rounded once"
    gone = [name for part in parts if part.kind == "time_table" for name in part.layers]
    if left := next((h for h in held for n in gone if f"{h}.".startswith(f"{n}.")), None):
        return f"{left!r} must not be in the file, as a time table stands for it"
    return None


def _listed(settings: Mapping[str, type]) -> str:
    return "".join(f", {name}" for name in settings)


def _problem(part: RuntimePart, layers: Mapping[str, Geometry]) -> str | None:
    """What is wrong with a part's settings, shapes and layers."""
    if part.kind == "prefix":
        return _prefix_problem(part)
    if part.kind in ("clock", *_ROWS):
        return _timed_problem(part, layers)
    for name in part.layers:
        if name not in layers or layers[name].op not in ("linear", "linear_t"):
            return f"layer {name!r} must be a compressed linear"
    if part.kind == "rounding":
        if part.settings["bits"] not in _BITS:
            return f"bits must be 2 to 8, not {part.settings['bits']}"
        if list(part.tensors.values()) != [("F32", (1,))]:
            return "clip or scale must be the one tensor, F32 [1]"
        return None
    inputs = {layers[name].I for name in part.layers}
    if len(inputs) != 1:
        return "its layers must have as many inputs each"
    (count,) = inputs
    for field, (dtype, shape) in part.tensors.items():
        if field in ("scale", "order"):
            if shape != (count,) or dtype not in (("I32",) if field == "order" else _FLOATS):
                return f"{field} must be [{count}], not {dtype} {list(shape)}"
            continue
        square = len(shape) == 3 and shape[1] == shape[2] and shape[1] > 0
        if not square or dtype not in _FLOATS or count % shape[1]:
            return f"{field} must be square blocks that divide {count}, not {dtype} {list(shape)}"
        if shape[0] not in (1, count // shape[1]):
            return f"{field} must be one block, or {count // shape[1]}, not {shape[0]}"
    return None


def _prefix_problem(part: RuntimePart) -> str | None:
    keys, tokens = part.tensors["keys"], part.tensors["tokens"]
    dtype, shape = keys
    fits = len(shape) == 4 and shape[0] == len(part.layers) and min(shape) > 0
    if not fits or dtype not in _FLOATS or part.tensors["values"] != keys:
        return (
            f"keys and values must both be [{len(part.layers)}, heads, tokens, size], not {dtype} "
            f"{list(shape)}"
        )
    if tokens != ("I32", (shape[2],)):
        return f"tokens must be I32 [{shape[2]}], not {tokens[0]} {list(tokens[1])}"
    heads = part.settings["heads"]
    if heads < 1 or heads % shape[1]:
        return f"heads must be a multiple of {shape[1]}, not {heads}"
    return None


def _timed_problem(part: RuntimePart, layers: Mapping[str, Geometry]) -> str | None:
    """What is wrong with a part that goes by a time step, by itself."""
    if len(part.layers) != 1:
        return f"layers must be one, not {len(part.layers)}"
    if part.kind == "clock":
        dtype, shape = part.tensors["times"]
        fits = dtype == "I32" and len(shape) == 1 and shape[0] > 0
        return None if fits else f"times must be I32 [steps], not {dtype} {list(shape)}"
    if part.kind == "time_table":
        dtype, shape = part.tensors["table"]
        classes = part.settings["classes"]
        if dtype not in _FLOATS or len(shape) < 2 or min(shape) < 1 or classes < 0:
            return f"table must be floats [rows, ...], not {dtype} {list(shape)}"
        if classes and (len(shape) < 3 or shape[1] != classes):
            return f"table must be [rows, {classes} classes, ...], not {list(shape)}"
        return None
    (name,) = part.layers
    if name not in layers or layers[name].op not in _TIMED_OPS:
        return f"layer {name!r} must be a compressed linear or convolution"
    if part.settings["bits"] not in _BITS:
        return f"bits must be 2 to 8, not {part.settings['bits']}"
    dtype, shape = part.tensors["scale"]
    if dtype != "F32" or len(shape) != 1 or shape[0] < 1:
        return f"scale must be F32 [rows], not {dtype} {list(shape)}"
    zero = None if part.settings["symmetric"] else ("U8", shape)
    if part.tensors.get("zero") != zero:
        return f"zero must be {'absent' if zero is None else f'U8 {list(shape)}'}"
    return None
