"""The data model of an integer graph: nodes in execution order, as canonical JSON."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from vq.container import ContainerError, Geometry
from vq.container.header import canonical_json, is_sha256, parse_json

__all__ = [
    "CHOICES",
    "NODES_MAX",
    "OPS",
    "Graph",
    "Node",
    "check_node",
    "output_shape",
    "read_node",
    "require",
    "version_for",
]

#: Operations and the number of their inputs.
OPS = {
    "input": 0, "linear": 1, "conv": 1, "add": 2, "global_avgpool": 1,
    "maxpool": 1, "shortcut": 1, "relu": 1, "flatten": 1,
}  # fmt: skip
#: Ways to choose the scale of an activation.
CHOICES = ("max", "percentile", "mse")
_WEIGHTED = ("linear", "conv")
#: Operations that requantise, and thus may saturate at zero from below.
_FUSES_RELU = ("linear", "conv", "add", "global_avgpool")
_WINDOWED = ("conv", "maxpool")
_ELEMENTS_MAX = 2**28
_SIZE_MAX = 2**16
NODES_MAX = 2**16

Shape = tuple[int, ...]


class Named(Protocol):
    """What errors tell of a node."""

    @property
    def name(self) -> str: ...


@dataclass(frozen=True)
class Node:
    """One operation on int8 tensors. Shapes leave out the batch.

    Attributes
    ----------
    name : str
        Unique in its graph.
    op : str
        One of ``OPS``.
    inputs : tuple of str
        Names of earlier nodes.
    shape : tuple of int
        Of the output: ``[C, L]``, ``[C, H, W]``, or anything with features last for ``linear``.
    layer : str
        ``linear``, ``conv``: the container's layer that holds the weights; else empty.
    relu : bool
        Whether the requantisation saturates at 0 from below.
    kernel, stride, dilation : tuple of int, one per spatial axis
        ``conv``, ``maxpool``; ``shortcut`` has a stride only. Else empty. The kernel of ``conv``
        is that of its layer, and not repeated here.
    padding : tuple of (before, after), one per spatial axis
        ``conv``: zeros; ``maxpool``: -128, which never wins.
    groups : int
        ``conv``: channel groups; else 1.
    channels : tuple of int
        ``shortcut``: zero channels (before, after); else empty.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    shape: Shape
    layer: str = ""
    relu: bool = False
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[tuple[int, int], ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    channels: tuple[int, ...] = ()


@dataclass(frozen=True)
class Graph:
    """Nodes in execution order: the first is the input, the last gives the output.

    Attributes
    ----------
    nodes : tuple of Node
    choice : str
        How activation scales were chosen, one of ``CHOICES``.
    calibration : str
        sha256 of the data they were measured on, 64 digits.
    version : int
        2 if a layer has groups, else 1 (:func:`version_for`).
    """

    nodes: tuple[Node, ...]
    choice: str = "max"
    calibration: str = "0" * 64
    version: int = 1

    @property
    def input(self) -> Node:
        return self.nodes[0]

    @property
    def output(self) -> Node:
        return self.nodes[-1]

    def to_json(self) -> str:
        """Canonical JSON; equal graphs have equal texts."""
        return canonical_json(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes, layers: Mapping[str, Geometry]) -> "Graph":
        """Read untrusted text.

        Raises
        ------
        ContainerError
            If a field is unknown, missing or ill-typed, or the graph fails :meth:`check`.
        """
        found = parse_json(text, "integer graph")
        if not isinstance(found, dict) or found.keys() != {
            "version", "nodes", "choice", "calibration"
        }:  # fmt: skip
            raise ContainerError(
                "integer graph must have exactly version, nodes, choice and calibration"
            )
        version = found["version"]
        if type(version) is not int or version not in (1, 2):
            raise ContainerError(
                f"integer graph: version must be 1 or 2, not {str(version)[:40]!r}"
            )
        rows, choice, calibration = found["nodes"], found["choice"], found["calibration"]
        if not isinstance(rows, list):
            raise ContainerError("integer graph: nodes must be a list")
        if choice not in CHOICES:
            raise ContainerError(f"integer graph: choice must be one of {', '.join(CHOICES)}")
        if not is_sha256(calibration):
            raise ContainerError("integer graph: calibration must be a sha256 of 64 digits")
        graph = cls(tuple(read_node(row) for row in rows), choice, calibration, version)
        graph.check(layers)
        return graph

    def check(self, layers: Mapping[str, Geometry]) -> None:
        """Require that the graph can run on the weights of ``layers``.

        Raises
        ------
        ContainerError
            At the first node that is wrong, by name and field.
        """
        if not 2 <= len(self.nodes) <= NODES_MAX:
            raise ContainerError(f"integer graph must hold 2 to {NODES_MAX} nodes")
        shapes: dict[str, Shape] = {}
        for place, node in enumerate(self.nodes):
            require(node, node.op in OPS, "op", f"one of {', '.join(OPS)}", node.op)
            require(node, node.name != "" and node.name not in shapes, "name", "unique", node.name)
            first = node.op == "input"
            require(node, first == (place == 0), "op", "input in the first node only", node.op)
            for name in node.inputs:
                require(node, name in shapes, "inputs", "names of earlier nodes", name)
            want = check_node(node, [shapes[name] for name in node.inputs], layers)
            shapes[node.name] = want
        version = version_for(self.nodes, layers)
        if self.version != version:
            what = "a layer has" if version == 2 else "no layer has"
            raise ContainerError(
                f"integer graph: version must be {version}, because {what} groups, "
                f"not {self.version}"
            )


def check_node(node: Node, inputs: Sequence[Shape], layers: Mapping[str, Geometry]) -> Shape:
    """Require that a node can run on inputs of these shapes; gives its output's shape.

    Raises
    ------
    ContainerError
        By name and field.
    """
    require(
        node, len(node.inputs) == OPS[node.op], "inputs", f"{OPS[node.op]} names", list(node.inputs)
    )
    _check_fields(node)
    g = layers.get(node.layer)
    require(
        node, (g is not None) == (node.op in _WEIGHTED), "layer",
        "a layer of the file" if node.op in _WEIGHTED else "empty", node.layer,
    )  # fmt: skip
    want = output_shape(node, inputs, g)
    require(node, node.shape == want, "shape", str(list(want)), list(node.shape))
    require(
        node, len(want) > 0 and min(want) > 0 and math.prod(want) <= _ELEMENTS_MAX, "shape",
        f"1 to {_ELEMENTS_MAX} elements", list(node.shape),
    )  # fmt: skip
    return want


def version_for(nodes: Iterable[Node], layers: Mapping[str, Geometry]) -> int:
    """Version of a graph of these nodes: 2 if a layer of theirs has groups, else 1.

    So that readers of version 1 refuse what they cannot run by its version.
    """
    return 2 if any(layers[node.layer].group for node in nodes if node.layer) else 1


def output_shape(node: Node, inputs: Sequence[Shape], g: Geometry | None) -> Shape:
    """Shape that ``node`` gives for inputs of these shapes; its own ``shape`` is not read.

    Raises
    ------
    ContainerError
        If it cannot take them.
    """
    if node.op == "input":
        return node.shape
    x = inputs[0]
    if node.op == "linear":
        assert g is not None
        fits = g.op in ("linear", "linear_t") and x[-1] == g.I
        require(node, fits, "layer", f"a linear of {x[-1]} inputs", f"{g.op} of {g.I}")
        return (*x[:-1], g.O)
    if node.op == "conv":
        assert g is not None
        return _conv_shape(node, x, g)
    if node.op == "add":
        require(node, x == inputs[1], "inputs", "of one shape", [list(s) for s in inputs])
        return x
    if node.op in ("relu", "flatten"):
        return x if node.op == "relu" else (math.prod(x),)
    require(node, len(x) in (2, 3), "inputs", "[C, L] or [C, H, W]", list(x))
    if node.op == "global_avgpool":
        kept = (x[0], *[1] * (len(x) - 1))
        return kept if node.shape == kept else (x[0],)
    if node.op == "maxpool":
        return (x[0], *_windows(node, x[1:], node.kernel))
    require(node, len(node.stride) == len(x) - 1, "stride", "one per axis", list(node.stride))
    spatial = (-(-n // s) for n, s in zip(x[1:], node.stride, strict=True))
    return (x[0] + sum(node.channels), *spatial)


def _conv_shape(node: Node, x: Shape, g: Geometry) -> Shape:
    fits = g.op == f"conv{len(x) - 1}d" and len(g.shape) == len(x) + 1
    require(node, fits, "layer", f"a conv{len(x) - 1}d", f"{g.op} of {list(g.shape)}")
    grouped = x[0] == node.groups * g.shape[1] and g.O % node.groups == 0
    require(node, grouped, "groups", f"such that {x[0]} channels give {g.O}", node.groups)
    return (g.O, *_windows(node, x[1:], g.shape[2:]))


def _windows(node: Node, spatial: Shape, kernel: Shape) -> Shape:
    """Positions of a kernel on a padded input, per axis."""
    rank = len(spatial)
    for field in ("stride", "padding", "dilation"):
        given = getattr(node, field)
        require(node, len(given) == rank, field, f"{rank} entries", given)
    require(node, len(kernel) == rank, "kernel", f"{rank} sizes", list(kernel))
    padded = [n + sum(p) for n, p in zip(spatial, node.padding, strict=True)]
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, node.dilation, strict=True)]
    if node.op == "maxpool":  # a window of padding alone has no greatest element
        inside = all(max(p) * 2 <= k for p, k in zip(node.padding, kernel, strict=True))
        require(node, inside, "padding", "at most half of the kernel", node.padding)
    require(
        node,
        math.prod(padded) <= _ELEMENTS_MAX,
        "padding",
        "small enough for a buffer",
        node.padding,
    )
    fits = all(n >= e for n, e in zip(padded, extent, strict=True))
    require(node, fits, "kernel", f"at most the padded input {padded}", extent)
    return tuple((n - e) // s + 1 for n, e, s in zip(padded, extent, node.stride, strict=True))


def _check_fields(node: Node) -> None:
    """Values in range, and none where the operation has no use for one."""
    windowed, shortcut = node.op in _WINDOWED, node.op == "shortcut"
    used = {
        "kernel": node.op == "maxpool",
        "stride": windowed or shortcut,
        "padding": windowed,
        "dilation": windowed,
        "channels": shortcut,
    }
    for field, belongs in used.items():
        given = getattr(node, field)
        require(node, belongs or given == (), field, f"empty for {node.op}", given)
    for field in ("kernel", "stride", "dilation"):
        given = getattr(node, field)
        small = all(1 <= n < _SIZE_MAX for n in given)
        require(node, small, field, f"1 to {_SIZE_MAX - 1}", given)
    widths = [n for pair in node.padding for n in pair] + list(node.channels)
    small = all(0 <= n < _SIZE_MAX for n in widths)
    require(node, small, "padding and channels", f"0 to {_SIZE_MAX - 1}", widths)
    if shortcut:
        require(node, len(node.channels) == 2, "channels", "(before, after)", node.channels)
    require(node, node.op != "maxpool" or set(node.dilation) <= {1}, "dilation", "1", node.dilation)
    positive = node.groups >= 1 and (node.op == "conv" or node.groups == 1)
    require(node, positive, "groups", "positive, and 1 unless conv", node.groups)
    require(node, node.op in _FUSES_RELU or not node.relu, "relu", "false", node.relu)


def require(node: Named, holds: bool, field: str, requirement: str, given: object) -> None:
    """Raise a :class:`ContainerError` about a field of a node unless something holds."""
    if not holds:
        raise ContainerError(
            f"integer graph: node {node.name!r}: {field} must be {requirement}, not {given!r}"
        )


def read_node(row: object) -> Node:
    """Read one untrusted node: exactly the fields of :class:`Node`, of their types."""
    if not isinstance(row, dict) or not isinstance(row.get("name"), str):
        raise ContainerError("integer graph: a node must be an object with a name")
    name = row["name"]
    for field in sorted(row.keys() ^ _READ.keys()):
        state = "unknown" if field in row else "missing"
        raise ContainerError(f"integer graph: node {name!r}: field {field!r} is {state}")
    values = {}
    for field, read in _READ.items():
        values[field] = read(row[field])
        if values[field] is None:
            given = repr(row[field])[:60]
            raise ContainerError(
                f"integer graph: node {name!r}: {field} must be of its type, not {given}"
            )
    return Node(**values)


def _exactly(kind: type) -> Callable[[Any], Any]:
    return lambda value: value if type(value) is kind else None


def _tuple_of(kind: type) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        fits = isinstance(value, list) and all(type(item) is kind for item in value)
        return tuple(value) if fits else None

    return read


def _pairs(value: Any) -> Any:
    if not isinstance(value, list):
        return None
    pairs = [_tuple_of(int)(item) for item in value]
    return tuple(pairs) if all(p is not None and len(p) == 2 for p in pairs) else None


_READ: dict[str, Callable[[Any], Any]] = {
    "name": _exactly(str), "op": _exactly(str), "inputs": _tuple_of(str), "shape": _tuple_of(int),
    "layer": _exactly(str), "relu": _exactly(bool), "kernel": _tuple_of(int),
    "stride": _tuple_of(int), "padding": _pairs, "dilation": _tuple_of(int),
    "groups": _exactly(int), "channels": _tuple_of(int),
}  # fmt: skip
