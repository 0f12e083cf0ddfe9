"""The data model of a graph of time steps: layers on the device, functions of the host between."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vq.container import ContainerError, Geometry
from vq.container.header import canonical_json, is_sha256, parse_json
from vq.integer.graph import CHOICES, NODES_MAX, Node, check_node, read_node, require
from vq.integer.steps.host import HOST, Shape
from vq.integer.store import STEPS_VERSION

__all__ = ["DEVICE", "HostNode", "StepGraph", "gives_int8", "shared"]

#: Operations of the device, int8 to int8.
DEVICE = ("linear", "conv", "add")
#: Those of the host that are no function of numbers alone, and the number of their inputs.
_OWN = {"input": 0, "table": 0, "quantize": 1}
_FIELDS = {"name", "op", "inputs", "shape", "settings"}
_GRAPH = {"version", "nodes", "choice", "calibration", "times", "classes"}
_CLASSES_MAX = 2**20


@dataclass(frozen=True)
class HostNode:
    """One operation of the host. Shapes leave out the batch.

    Attributes
    ----------
    name : str
        Unique in its graph.
    op : str
        "input"; "table": a row of the present step; "quantize": float32 to int8; or one of
        :data:`vq.integer.steps.host.HOST`.
    inputs : tuple of str
        Names of earlier nodes.
    shape : tuple of int
    settings : mapping
        By operation. "table" has ``steps`` and ``classes``: whether its rows go by them.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    shape: Shape
    settings: Mapping[str, Any]

    @property
    def gives_int8(self) -> bool:
        """Whether the device can read it."""
        return self.op == "quantize"


@dataclass(frozen=True)
class StepGraph:
    """Nodes in execution order: the first is the input, the last gives the output.

    Attributes
    ----------
    nodes : tuple of Node or HostNode
    times : tuple of int
        Time steps that there are scales for, in the order of sampling.
    classes : int
        That tables have rows for, 0 if the network is told none.
    choice, calibration : str
        As in :class:`vq.integer.Graph`.
    """

    nodes: tuple[Node | HostNode, ...]
    times: tuple[int, ...]
    classes: int = 0
    choice: str = "max"
    calibration: str = "0" * 64

    def to_json(self) -> str:
        """Canonical JSON; equal graphs have equal texts."""
        return canonical_json({**asdict(self), "version": STEPS_VERSION})

    @classmethod
    def from_json(cls, text: str | bytes, layers: Mapping[str, Geometry]) -> "StepGraph":
        """Read untrusted text.

        Raises
        ------
        ContainerError
            If a field is unknown, missing or ill-typed, or the graph fails :meth:`check`.
        """
        found = parse_json(text, "integer graph")
        if not isinstance(found, dict) or found.keys() != _GRAPH:
            raise ContainerError(
                f"integer graph of time steps must have exactly {', '.join(sorted(_GRAPH))}"
            )
        if type(found["version"]) is not int or found["version"] != STEPS_VERSION:
            given = str(found["version"])[:40]
            raise ContainerError(
                f"integer graph of time steps: version must be {STEPS_VERSION}, not {given!r}"
            )
        rows, times, classes = found["nodes"], found["times"], found["classes"]
        if not isinstance(rows, list):
            raise ContainerError("integer graph: nodes must be a list")
        if not isinstance(times, list) or not all(type(time) is int for time in times):
            raise ContainerError("integer graph: times must be a list of integers")
        if type(classes) is not int:
            raise ContainerError("integer graph: classes must be an integer")
        nodes = tuple(map(_read, rows))
        graph = cls(nodes, tuple(times), classes, found["choice"], found["calibration"])
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
        if not self.times or len(set(self.times)) != len(self.times):
            raise ContainerError("integer graph: times must be at least one, and differ")
        if not 0 <= self.classes <= _CLASSES_MAX:
            raise ContainerError(f"integer graph: classes must be 0 to {_CLASSES_MAX}")
        if not 2 <= len(self.nodes) <= NODES_MAX:
            raise ContainerError(f"integer graph must hold 2 to {NODES_MAX} nodes")
        known: dict[str, Node | HostNode] = {}
        for place, node in enumerate(self.nodes):
            require(node, node.name != "" and node.name not in known, "name", "unique", node.name)
            first = node.op == "input"
            require(node, first == (place == 0), "op", "input in the first node only", node.op)
            for name in node.inputs:
                require(node, name in known, "inputs", "names of earlier nodes", name)
            given = [known[name] for name in node.inputs]
            shapes = [one.shape for one in given]
            if isinstance(node, Node):
                require(node, node.op in DEVICE, "op", f"one of {', '.join(DEVICE)}", node.op)
                real = [one.name for one in given if not gives_int8(one)]
                require(node, not real, "inputs", "int8: quantized, or of the device", real)
                check_node(node, shapes, layers)
            else:
                self._check_host(node, shapes)
            known[node.name] = node

    def _check_host(self, node: HostNode, shapes: Sequence[Shape]) -> None:
        op = HOST.get(node.op)
        wanted = op.settings if op else {"steps": bool, "classes": bool}
        wanted = wanted if op or node.op == "table" else {}
        fits = node.settings.keys() == wanted.keys() and all(
            _is(node.settings[name], kind) for name, kind in wanted.items()
        )
        names = ", ".join(wanted) or "none"
        require(node, fits, "settings", f"exactly, and of its type, {names}", dict(node.settings))
        arity = op.inputs if op else _OWN[node.op]
        many = len(node.inputs) == arity if arity is not None else len(node.inputs) > 0
        require(node, many, "inputs", f"{'some' if arity is None else arity}", list(node.inputs))
        told = node.op != "table" or not node.settings["classes"] or self.classes > 0
        require(node, told, "settings", "of no classes, as the graph has none", True)
        plain = node.settings.get("affine", True) or not node.settings["module"]
        require(node, plain, "settings", "without a module where not affine", dict(node.settings))
        small = len(node.shape) > 0 and min(node.shape) > 0 and math.prod(node.shape) <= 2**28
        require(node, small, "shape", f"1 to {2**28} elements", list(node.shape))
        if op is None:
            want = shapes[0] if node.op == "quantize" else node.shape
        else:
            found = op.shape(node.settings, shapes, node.shape)
            require(node, found is not None, "inputs", "of shapes that fit", list(shapes))
            assert found is not None
            want = found
        require(node, node.shape == want, "shape", str(list(want)), list(node.shape))

    def tensors(self, node: HostNode) -> dict[str, Shape]:
        """What a node of the host reads from the file, with shapes; see :func:`shared`."""
        if node.op == "table":
            steps = len(self.times) if node.settings["steps"] else 1
            classes = self.classes if node.settings["classes"] else 1
            return {"rows": (steps, classes, *node.shape)}
        if node.op not in HOST:
            return {}
        shapes = {one.name: one.shape for one in self.nodes}
        return dict(HOST[node.op].tensors(node.settings, [shapes[name] for name in node.inputs]))

    def turns(self) -> list[list[Node | HostNode]]:
        """Nodes in an order in which host and device take turns, as few as can be.

        The host's are first, third and so on; each turn holds all nodes of its side that can run
        by then, in the order of the graph. None is empty but perhaps the first.
        """
        waiting, done = list(self.nodes), set[str]()
        found: list[list[Node | HostNode]] = []
        while waiting:
            turn: list[Node | HostNode] = []
            on_device, left = len(found) % 2 == 1, []
            for node in waiting:
                if isinstance(node, Node) == on_device and done.issuperset(node.inputs):
                    turn.append(node)
                    done.add(node.name)
                else:
                    left.append(node)
            found.append(turn)
            waiting = left
        return found


def shared(node: HostNode) -> dict[str, str]:
    """Which of a node's tensors are the model's own, by field, and what these are called."""
    module = node.settings.get("module")
    return {field: f"{module}.{field}" for field in ("weight", "bias")} if module else {}


def gives_int8(node: Node | HostNode) -> bool:
    """Whether the device can read what a node gives."""
    return isinstance(node, Node) or node.gives_int8


def _is(value: object, kind: type) -> bool:
    if kind is list:
        return isinstance(value, list) and all(type(item) is int for item in value)
    return type(value) is kind


def _read(row: object) -> Node | HostNode:
    """Read one untrusted node."""
    if not isinstance(row, dict) or row.get("op") not in (*HOST, *_OWN):
        return read_node(row)
    name, inputs, shape, settings = (row.get(f) for f in ("name", "inputs", "shape", "settings"))
    fits = row.keys() == _FIELDS and isinstance(name, str) and isinstance(settings, dict)
    fits = fits and isinstance(inputs, list) and all(isinstance(one, str) for one in inputs)
    if not fits or not _is(shape, list):
        raise ContainerError(
            f"integer graph: node {str(name)[:60]!r}: must have exactly "
            f"{', '.join(sorted(_FIELDS))}, of their types"
        )
    assert isinstance(inputs, list) and isinstance(shape, list) and isinstance(settings, dict)
    return HostNode(str(name), row["op"], tuple(inputs), tuple(shape), settings)
