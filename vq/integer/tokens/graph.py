"""The data model of a transformer's graph: rows of tokens, of which nobody knows how many."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from vq.container import ContainerError, Geometry
from vq.container.header import canonical_json, is_sha256, parse_json
from vq.integer.graph import CHOICES, NODES_MAX, Node, check_node, read_node, require
from vq.integer.store import TOKENS_VERSION
from vq.integer.tokens.arithmetic import BYTE, STREAM

__all__ = ["CONTEXT_MAX", "FORMS", "Tensors", "TokenGraph", "TokenNode", "form_of", "tensors_of"]

Shape = tuple[int, ...]
#: Name, dtype and shape of what a node has in the file.
Tensors = dict[str, tuple[str, Shape]]

#: How a value is held: int8, int16, int32, or int8 with a factor for every row.
FORMS = (BYTE, "int16", STREAM, "rows")
CONTEXT_MAX = 2**16
_CHANNELS_MAX = 2**15
_ELEMENTS_MAX = 2**28
_FIELDS = {"name", "op", "inputs", "shape", "form", "layer", "settings"}
_GRAPH = {"version", "nodes", "choice", "calibration", "context"}
_BOTH = (BYTE, "int16")
_ALL = (*_BOTH, STREAM)


@dataclass(frozen=True)
class _Op:
    """Inputs, settings with their types, and forms that an operation may give."""

    inputs: int
    settings: Mapping[str, type] = field(default_factory=dict)
    forms: Sequence[str] = _BOTH


_OPS = {
    "tokens": _Op(0, {"vocabulary": int}, ("int16",)),
    "embedding": _Op(1),
    "constant": _Op(0, {"rows": int}),
    "linear": _Op(1, {"table": str}),
    "add": _Op(2, {}, _ALL),
    "product": _Op(2),
    "function": _Op(1, {"function": str}),
    "rms_norm": _Op(1),
    "layer_norm": _Op(1),
    "angles": _Op(0, {"rows": int}, ("int16",)),
    "rotary": _Op(2, {"heads": int, "pairs": str}),
    "slice": _Op(1, {"start": int}, _ALL),
    "attention": _Op(3, {"heads": int, "kv_heads": int, "causal": bool, "shares": str}),
    "narrow": _Op(1, {}, ("int8",)),
    "to_rows": _Op(1, {}, ("rows",)),
    "places": _Op(1),
    "place": _Op(1, {"before": int}, _ALL),
    "select": _Op(1, {"row": int}, _ALL),
    "mean": _Op(1, {"first": int}),
}
#: Operations that give what they read, so that scale and format stay.
_SAME = ("slice", "places", "place", "select")
#: Of feature maps: those of graphs without tokens.
_MAPS = ("input", "conv")


@dataclass(frozen=True)
class TokenNode:
    """One operation.

    Attributes
    ----------
    name : str
        Unique in its graph.
    op : str
    inputs : tuple of str
        Names of earlier nodes.
    shape : tuple of int
        Of one row, ``[C]``; of a feature map ``[C, H, W]``.
    form : str
        One of :data:`FORMS`.
    layer : str
        ``linear``, ``embedding``: the container's layer that holds the weights, or empty where a
        table of the graph does.
    settings : mapping
        By operation.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    shape: Shape
    form: str = "int8"
    layer: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TokenGraph:
    """Nodes in execution order: the first is the input, the last gives the output.

    Attributes
    ----------
    nodes : tuple of Node or TokenNode
        :class:`vq.integer.Node` for the image that comes in and its convolutions.
    context : int
        Rows that there are tables and a cache for.
    choice, calibration : str
        As in :class:`vq.integer.Graph`.
    """

    nodes: tuple[Node | TokenNode, ...]
    context: int
    choice: str = "max"
    calibration: str = "0" * 64

    @property
    def input(self) -> Node | TokenNode:
        return self.nodes[0]

    @property
    def output(self) -> TokenNode:
        last = self.nodes[-1]
        assert isinstance(last, TokenNode)
        return last

    @property
    def causal(self) -> bool:
        """Whether no row depends on later ones, so that a text can be continued."""
        found = [one for one in self.nodes if isinstance(one, TokenNode)]
        seen = [one.settings["causal"] for one in found if one.op == "attention"]
        return all(seen) and self.rows()[self.output.name] is None

    def rows(self) -> dict[str, int | None]:
        """How many rows every node gives: None where as many as there are tokens."""
        found: dict[str, int | None] = {}
        for node in self.nodes:
            given = [found[name] for name in node.inputs]
            if not isinstance(node, TokenNode):
                found[node.name] = 0
            elif node.op == "places":
                source = next(one for one in self.nodes if one.name == node.inputs[0])
                found[node.name] = math.prod(source.shape[1:])
            elif node.op in ("select", "mean"):
                found[node.name] = 1
            elif node.op == "place":
                found[node.name] = None if given[0] is None else given[0] + node.settings["before"]
            elif node.op in ("constant", "angles"):
                count = int(node.settings["rows"])
                found[node.name] = None if count == self.context else count
            else:
                found[node.name] = given[0] if given else None
        return found

    def to_json(self) -> str:
        """Canonical JSON; equal graphs have equal texts."""
        return canonical_json({**asdict(self), "version": TOKENS_VERSION})

    @classmethod
    def from_json(cls, text: str | bytes, layers: Mapping[str, Geometry]) -> "TokenGraph":
        """Read untrusted text.

        Raises
        ------
        ContainerError
            If a field is unknown, missing or ill-typed, or the graph fails :meth:`check`.
        """
        found = parse_json(text, "integer graph")
        if not isinstance(found, dict) or found.keys() != _GRAPH:
            raise ContainerError(
                f"integer graph of tokens must have exactly {', '.join(sorted(_GRAPH))}"
            )
        if type(found["version"]) is not int or found["version"] != TOKENS_VERSION:
            given = str(found["version"])[:40]
            raise ContainerError(
                f"integer graph of tokens: version must be {TOKENS_VERSION}, not {given!r}"
            )
        rows, context = found["nodes"], found["context"]
        if not isinstance(rows, list):
            raise ContainerError("integer graph: nodes must be a list")
        if type(context) is not int:
            raise ContainerError("integer graph: context must be an integer")
        nodes = tuple(map(_read, rows))
        graph = cls(nodes, context, found["choice"], found["calibration"])
        graph.check(layers)
        return graph

    def check(self, layers: Mapping[str, Geometry]) -> None:
        """Require that the graph can run on the weights of ``layers``.

        Raises
        ------
        ContainerError
            At the first node that is wrong, by name and field.
        """
        if self.choice not in CHOICES:
            raise ContainerError(f"integer graph: choice must be one of {', '.join(CHOICES)}")
        if not is_sha256(self.calibration):
            raise ContainerError("integer graph: calibration must be a sha256 of 64 digits")
        if not 1 <= self.context <= CONTEXT_MAX:
            raise ContainerError(f"integer graph: context must be 1 to {CONTEXT_MAX}")
        if not 2 <= len(self.nodes) <= NODES_MAX:
            raise ContainerError(f"integer graph must hold 2 to {NODES_MAX} nodes")
        known: dict[str, Node | TokenNode] = {}
        for place, node in enumerate(self.nodes):
            require(node, node.name != "" and node.name not in known, "name", "unique", node.name)
            first = node.op in ("input", "tokens")
            require(node, first == (place == 0), "op", "input in the first node only", node.op)
            for name in node.inputs:
                require(node, name in known, "inputs", "names of earlier nodes", name)
            given = [known[name] for name in node.inputs]
            if isinstance(node, TokenNode):
                _check(node, given, layers, known)
            else:
                wrong = [one.name for one in given if form_of(one) != BYTE]
                require(node, not wrong, "inputs", "int8", wrong)
                check_node(node, [one.shape for one in given], layers)
            known[node.name] = node
        last = self.nodes[-1]
        rows = isinstance(last, TokenNode) and len(last.shape) == 1 and last.form in _BOTH
        require(last, rows, "op", "one that gives rows of int8 or int16", last.op)
        self._check_rows()

    def _check_rows(self) -> None:
        rows = self.rows()
        for node in self.nodes:
            if not isinstance(node, TokenNode):
                continue
            given = [rows[name] for name in node.inputs]
            if node.op in ("add", "product", "rotary", "attention"):
                require(node, len(set(given)) == 1, "inputs", "of equally many rows", given)
            count = rows[node.name]
            fits = count is None or 1 <= count <= self.context or len(node.shape) == 3
            require(node, fits, "settings", f"such that there are 1 to {self.context} rows", count)
            if node.op == "place":
                require(node, given[0] is not None, "inputs", "of a known number of rows", "tokens")
            if node.op == "select":
                row, most = node.settings["row"], given[0]
                fits = row == 0 or (most is not None and 0 <= row < most)
                require(node, fits, "settings", "a row that there is", row)
            if node.op == "mean":
                least = given[0] or 1
                first = node.settings["first"]
                fits = 0 <= first < least
                require(node, fits, "settings", f"a first row of 0 to {least - 1}", first)


def form_of(node: Node | TokenNode) -> str:
    """How a node's output is held."""
    return node.form if isinstance(node, TokenNode) else "int8"


def tensors_of(node: TokenNode, given: Sequence[Node | TokenNode], g: Geometry | None) -> Tensors:
    """What a node has in the file, with dtypes and shapes; ``g`` is its layer, if it has one."""
    channels = node.shape[0]

    def scaled(multipliers: int, shifts: int) -> Tensors:
        return {"multiplier": ("I16", (multipliers,)), "shift": ("U8", (shifts,))}

    if node.op in ("rms_norm", "layer_norm"):
        own: Tensors = {"bias": ("I32", (channels,)), "epsilon": ("I64", (1,))}
        return scaled(channels, channels) | own
    if node.op == "linear":
        return scaled(channels, channels) | {"bias": ("I32", (channels,))}
    if node.op == "embedding":
        rows = int(getattr(given[0], "settings", {}).get("vocabulary", 0))
        table: Tensors = {} if node.layer else {"weight": ("I8", (rows, channels))}
        return scaled(rows, rows) | table
    if node.op == "constant":
        return {"rows": ("I8" if node.form == BYTE else "I16", (node.settings["rows"], channels))}
    if node.op == "angles":
        shape = (node.settings["rows"], channels // 2)
        return {"cosine": ("I16", shape), "sine": ("I16", shape)}
    if node.op == "function":
        if form_of(given[0]) == BYTE:
            return {"entries": ("I8" if node.form == BYTE else "I16", (256,))}
        return {"entries": ("I16", (257,))}
    if node.op == "attention":
        return scaled(3, 3)
    if node.op == "add":
        return scaled(2, 2 if node.form == STREAM else 1)
    return scaled(1, 1) if node.op in ("product", "rotary", "mean", "narrow") else {}


def _check(
    node: TokenNode,
    given: Sequence[Node | TokenNode],
    layers: Mapping[str, Geometry],
    known: Mapping[str, Node | TokenNode],
) -> None:
    require(node, node.op in _OPS, "op", f"one of {', '.join((*_MAPS, *_OPS))}", node.op)
    op, s = _OPS[node.op], node.settings
    fits = s.keys() == op.settings.keys() and all(type(s[n]) is t for n, t in op.settings.items())
    names = ", ".join(op.settings) or "none"
    require(node, fits, "settings", f"exactly, and of its type, {names}", dict(s))
    require(node, len(given) == op.inputs, "inputs", f"{op.inputs} names", list(node.inputs))
    require(node, node.form in op.forms, "form", f"one of {', '.join(op.forms)}", node.form)
    for at, one in enumerate(given):
        _check_input(node, at, one)
    g = layers.get(node.layer)
    wanted = node.op in ("linear", "embedding")
    require(node, g is not None or not node.layer, "layer", "a layer of the file", node.layer)
    require(node, wanted or not node.layer, "layer", "empty", node.layer)
    want = _shape(node, given, g, known)
    require(node, node.shape == want, "shape", str(list(want)), list(node.shape))
    small = min(want) > 0 and want[0] <= (_ELEMENTS_MAX if node.op == "linear" else _CHANNELS_MAX)
    small = small and math.prod(want) <= _ELEMENTS_MAX
    require(node, small, "shape", "of few enough channels", list(want))


def _check_input(node: TokenNode, at: int, one: Node | TokenNode) -> None:
    """What an operation cannot read."""
    form = form_of(one)
    allowed: Sequence[str] = _BOTH
    if node.op == "linear":
        allowed = (*_BOTH, "rows")
    elif node.op in ("rms_norm", "layer_norm") or (node.op == "add" and node.form == STREAM):
        allowed = _ALL
    elif node.op == "attention" and at > 0:
        allowed = ("int8",)
    elif node.op in ("to_rows", "narrow"):
        allowed = ("int16",)
    elif node.op in _SAME:
        allowed = (node.form,)
    require(node, form in allowed, "inputs", " or ".join(allowed), f"{one.name}: {form}")
    special = {"tokens": ("embedding", 0), "angles": ("rotary", 1)}
    if one.op in special or (node.op, at) in special.values():
        fits = special.get(one.op) == (node.op, at)
        kind = next((op for op, user in special.items() if user == (node.op, at)), "of values")
        require(node, fits, "inputs", kind, one.name)
    rank = 3 if node.op == "places" else 1
    fits = len(one.shape) == rank or node.op == "function"
    require(node, fits, "inputs", f"of {rank} axes", list(one.shape))


def _shape(
    node: TokenNode,
    given: Sequence[Node | TokenNode],
    g: Geometry | None,
    known: Mapping[str, Node | TokenNode],
) -> Shape:
    """Shape that a node must have; settings must make sense."""
    s, x = node.settings, given[0].shape if given else node.shape
    if node.op == "tokens":
        require(node, 1 <= s["vocabulary"] <= _ELEMENTS_MAX, "settings", "a vocabulary", s)
        return (1,)
    if node.op == "embedding":
        rows = int(getattr(given[0], "settings", {})["vocabulary"])
        if g is None:
            return node.shape[:1]
        fits = g.op == "embedding" and rows == g.O
        require(node, fits, "layer", f"an embedding of {rows}", f"{g.op} of {g.O}")
        return (g.I,)
    if node.op in ("constant", "angles"):
        require(node, 1 <= s["rows"] <= CONTEXT_MAX, "settings", "rows", s["rows"])
        even = node.op == "constant" or node.shape[0] % 2 == 0
        require(node, len(node.shape) == 1 and even, "shape", "of one axis", list(node.shape))
        return node.shape
    if node.op == "linear":
        return _linear_shape(node, x, g, known)
    if node.op in ("add", "product"):
        require(node, x == given[1].shape, "inputs", "of one shape", [list(x), given[1].shape])
    elif node.op == "rotary":
        require(node, s["pairs"] in ("adjacent", "halves"), "settings", "pairs", s["pairs"])
        size = given[1].shape[0]
        fits = s["heads"] >= 1 and x[0] == s["heads"] * size
        require(node, fits, "settings", f"heads of {size} channels", s["heads"])
    elif node.op == "slice":
        start = s["start"]
        fits = 0 <= start and len(node.shape) == 1 and start + node.shape[0] <= x[0]
        require(node, fits, "settings", f"a part of {x[0]} channels", start)
        return node.shape
    elif node.op == "attention":
        _check_attention(node, [one.shape[0] for one in given])
    elif node.op == "places":
        return x[:1]
    elif node.op == "place":
        require(node, s["before"] >= 1, "settings", "at least 1", s["before"])
    return x


def _linear_shape(
    node: TokenNode, x: Shape, g: Geometry | None, known: Mapping[str, Node | TokenNode]
) -> Shape:
    table = known.get(node.settings["table"])
    require(
        node, (g is None) != (table is None), "layer", "a layer of the file, or a table", node.layer
    )
    if g is not None:
        fits = g.op in ("linear", "linear_t", "embedding") and x[-1] == g.I
        require(node, fits, "layer", f"a linear of {x[-1]} inputs", f"{g.op} of {g.I}")
        return (g.O,)
    assert table is not None
    owns = isinstance(table, TokenNode) and table.op == "embedding" and not table.layer
    fits = owns and table.shape == x
    require(node, fits, "settings", f"a table of {x[-1]} channels", node.settings["table"])
    source = known[table.inputs[0]]
    assert isinstance(source, TokenNode)
    return (int(source.settings["vocabulary"]),)


def _check_attention(node: TokenNode, widths: Sequence[int]) -> None:
    s = node.settings
    heads, shared = s["heads"], s["kv_heads"]
    fits = heads >= 1 and shared >= 1 and heads % shared == 0 and widths[0] % heads == 0
    require(node, fits, "settings", f"heads that share {widths[0]} channels", heads)
    size = widths[0] // heads
    fits = widths[1] == widths[2] == shared * size and size <= 512
    require(
        node, fits, "inputs", f"keys and values of {shared} heads of {size}, at most 512", widths
    )
    require(node, s["shares"] in ("rows", "int16"), "settings", "shares of rows or int16", s)


def _read(row: object) -> Node | TokenNode:
    """Read one untrusted node."""
    if not isinstance(row, dict) or row.get("op") in _MAPS:
        return read_node(row)
    strings = all(isinstance(row.get(f), str) for f in ("name", "op", "form", "layer"))
    inputs, shape, settings = (row.get(f) for f in ("inputs", "shape", "settings"))
    fits = row.keys() == _FIELDS and strings and isinstance(settings, dict)
    fits = fits and isinstance(inputs, list) and all(isinstance(one, str) for one in inputs)
    fits = fits and isinstance(shape, list) and all(type(one) is int for one in shape)
    if not fits or not shape:
        raise ContainerError(
            f"integer graph: node {str(row.get('name'))[:60]!r}: must have exactly "
            f"{', '.join(sorted(_FIELDS))}, of their types"
        )
    assert isinstance(inputs, list) and isinstance(shape, list) and isinstance(settings, dict)
    return TokenNode(
        row["name"], row["op"], tuple(inputs), tuple(shape), row["form"], row["layer"], settings
    )
