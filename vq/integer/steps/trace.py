"""From a diffusion network in torch to drafts of a graph of time steps: torch.fx.

What depends on time step and class alone becomes tables; layers and sums of what they give go to
the device; everything else that is known goes to the host. Shapes are those that were seen in a
run, so that arithmetic on shapes needs no rules.
"""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from vq.activations.timetables import Tabled
from vq.errors import ConfigError
from vq.layers import op_of

__all__ = ["Draft", "Sources", "trace_network", "translated"]

_PLACES = ("input", "step", "class")


@dataclass(eq=False)
class Draft:
    """A node whose numbers are still unknown.

    Attributes
    ----------
    name, op, shape
        As nodes have them.
    inputs : list of Draft
    on_device : bool
    value : fx.Node or None
        Where the network computes what this node gives; None for what it is not asked for.
    layer : str
        That it is, or whose scales it rounds to.
    settings : dict
        Of a host's node, or further fields of a device's.
    tensors : dict of str to Tensor
        Of a host's node, but for tables.
    """

    name: str
    op: str
    inputs: list["Draft"]
    shape: tuple[int, ...]
    on_device: bool = False
    value: fx.Node | None = None
    layer: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)

    @property
    def gives_int8(self) -> bool:
        """Whether the device can read it."""
        return self.on_device or self.op == "quantize"


class _Tracer(fx.Tracer):
    """Looks into no module that a table stands for."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Tabled) or super().is_leaf_module(m, module_qualified_name)


def trace_network(model: nn.Module) -> fx.GraphModule:
    """A network that is called with (input, time steps) or (input, time steps, classes).

    Raises
    ------
    ConfigError
        If torch.fx cannot follow it, or it is called otherwise.
    """
    try:
        found = fx.GraphModule(model, _Tracer().trace(model))
        found.graph.eliminate_dead_code()  # what tables stand for reads the step no more
        found.recompile()
    except Exception as error:  # tracing runs the user's code on stand-ins
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"{type(model).__name__} must be traceable by torch.fx, but {reason}"
        ) from error
    count = sum(node.op == "placeholder" for node in found.graph.nodes)
    if count not in (2, 3):
        raise ConfigError(
            f"{type(model).__name__} must be called with (input, time steps) or (input, time "
            f"steps, classes), not with {count} arguments"
        )
    return found


@dataclass(frozen=True)
class Sources:
    """What every value of a network depends on: "input", "step", "class"."""

    of: Mapping[fx.Node, frozenset[str]]

    @classmethod
    def in_graph(cls, graph: fx.Graph) -> "Sources":
        """Follow values from arguments on; shapes carry none."""
        found: dict[fx.Node, frozenset[str]] = {}
        places = iter(_PLACES)
        for node in graph.nodes:
            if node.op == "placeholder":
                found[node] = frozenset([next(places)])
            elif _asks_shape(node):
                found[node] = frozenset()
            else:
                found[node] = frozenset().union(*(found[one] for one in node.all_input_nodes))
        return cls(found)

    def is_apart(self, node: fx.Node) -> bool:
        """Whether a value does not depend on the network's input."""
        return "input" not in self.of[node]


def translated(
    module: fx.GraphModule, seen: Mapping[fx.Node, Any], layers: Sequence[str]
) -> list[Draft]:
    """Drafts in execution order.

    Parameters
    ----------
    module : GraphModule
        From :func:`trace_network`.
    seen : mapping of fx.Node to value
        In one run: tensors, and numbers.
    layers : sequence of str
        Those with scales by time step.

    Raises
    ------
    ConfigError
        At an operation that no graph has, or a layer that is not quantised; the message names it.
    """
    return _Translation(module, seen, layers).result()


_SUMS: dict[Any, str] = {
    operator.add: "sum", operator.iadd: "sum", torch.add: "sum", "add": "sum", "add_": "sum",
    operator.sub: "difference", torch.sub: "difference", "sub": "difference",
    operator.mul: "product", operator.imul: "product", torch.mul: "product", "mul": "product",
    operator.truediv: "quotient", torch.div: "quotient", "div": "quotient",
}  # fmt: skip
_RESHAPES = (torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze, torch.unflatten,
             "flatten", "unflatten", "reshape", "view", "squeeze", "unsqueeze")  # fmt: skip
_NOTHING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d)


class _Translation:
    """Walks the traced graph once."""

    def __init__(
        self, module: fx.GraphModule, seen: Mapping[fx.Node, Any], layers: Sequence[str]
    ) -> None:
        self.module, self.seen, self.layers = module, seen, layers
        self.sources = Sources.in_graph(module.graph)
        self.drafts: list[Draft] = []
        self.made: dict[fx.Node, Draft] = {}
        self.rounded: dict[tuple[Draft, str], Draft] = {}
        self.names: set[str] = set()

    def result(self) -> list[Draft]:
        for node in self.module.graph.nodes:
            if node.op == "output":
                last = self._draft(node.args[0], node)
                if last is not self.drafts[-1]:
                    raise ConfigError("network must end with the operation that gives its output")
            elif node.op == "placeholder" and not self.drafts:
                self._add(node, "input", [])
            elif not self.sources.is_apart(node) and isinstance(self.seen.get(node), Tensor):
                self._translate(node)
        return self.drafts

    def _translate(self, node: fx.Node) -> None:
        first = self.drafts[0].value
        assert first is not None
        if self.seen[node].shape[:1] != self.seen[first].shape[:1]:
            self._refuse(node, "putting rows of the batch together, or apart")
        if node.op == "call_module":
            self._module(node, self.module.get_submodule(str(node.target)))
            return
        target = node.target
        if target in _SUMS:
            self._binary(node, _SUMS[target])
        elif target is F.silu:
            self._add(node, "silu", node.args[:1])
        elif target is F.gelu:
            tanh = node.kwargs.get("approximate", "none") == "tanh"
            self._add(node, "gelu", node.args[:1], {"tanh": tanh})
        elif target in (torch.cat, torch.concat):
            self._cat(node)
        elif target in _RESHAPES:
            self._add(node, "reshape", node.args[:1])
        elif target in ("transpose", "permute", torch.transpose, torch.permute):
            self._permute(node)
        elif target is F.scaled_dot_product_attention:
            if len(node.args) != 3 or node.kwargs:
                self._refuse(node, "attention with a mask, dropout or another scale")
            self._add(node, "attention", node.args)
        elif target is F.interpolate:
            self._interpolate(node)
        elif target is F.pixel_shuffle:
            self._shuffle(node)
        elif target is operator.getitem:
            self._item(node)
        elif target in ("contiguous", F.dropout):
            self.made[node] = self._draft(node.args[0], node)
        else:
            self._refuse(node, target if isinstance(target, str) else target.__name__)

    def _module(self, node: fx.Node, module: nn.Module) -> None:
        name, x = str(node.target), node.args[0]
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            if module.padding_mode != "zeros" or isinstance(module.padding, str):
                self._refuse(node, f"padding {module.padding_mode!r} {module.padding!r}")
            self._layer(node, "conv", x, {
                "stride": module.stride, "padding": tuple((n, n) for n in module.padding),
                "dilation": module.dilation, "groups": module.groups,
            })  # fmt: skip
        elif op_of(module) in ("linear", "linear_t"):
            self._layer(node, "linear", x, {})
        elif isinstance(module, nn.GroupNorm):
            settings = {"groups": module.num_groups}
            self._norm(node, "group_norm", x, settings, module)
        elif isinstance(module, nn.LayerNorm):
            settings = {"axes": len(module.normalized_shape)}
            self._norm(node, "layer_norm", x, settings, module)
        elif isinstance(module, nn.SiLU):
            self._add(node, "silu", [x])
        elif isinstance(module, nn.GELU):
            self._add(node, "gelu", [x], {"tanh": module.approximate == "tanh"})
        elif isinstance(module, _NOTHING):
            self.made[node] = self._draft(x, node)
        else:
            self._refuse(node, f"{type(module).__name__} at {name!r}")

    def _layer(self, node: fx.Node, op: str, x: Any, settings: dict[str, Any]) -> None:
        name = str(node.target)
        if name not in self.layers:
            raise ConfigError(
                f"layer {name!r} must have 4- or 8-bit weights and scales by time step, as "
                "w4a8-diffusion gives them, not be kept"
            )
        source = self._int8(self._draft(x, node), name)
        self._push(Draft(self._name(name), op, [source], self._shape(node), on_device=True,
                         value=node, layer=name, settings=settings))  # fmt: skip

    def _norm(self, node: fx.Node, op: str, x: Any, settings: dict[str, Any], module: Any) -> None:
        settings |= {"affine": module.weight is not None, "module": ""}
        self._add(node, op, [x], settings)
        tensors = self.drafts[-1].tensors = {"eps": torch.tensor([module.eps])}
        if module.weight is not None:
            bias = torch.zeros_like(module.weight) if module.bias is None else module.bias
            tensors |= {"weight": module.weight, "bias": bias}

    def _binary(self, node: fx.Node, op: str) -> None:
        if node.kwargs or len(node.args) != 2:
            self._refuse(node, f"{op} with settings")
        rank = len(self._shape(node))
        first, second = (self._operand(x, node, rank) for x in node.args)
        whole = first.shape == second.shape and "table" not in (first.op, second.op)
        if op == "sum" and whole and (first.on_device or second.on_device):
            given = [self._int8(one, "") for one in (first, second)]
            self._push(Draft(self._name(node.name), "add", given, self._shape(node),
                             on_device=True, value=node))  # fmt: skip
        else:
            self._push(Draft(self._name(node.name), op, [first, second], self._shape(node),
                             value=node))  # fmt: skip

    def _operand(self, x: Any, user: fx.Node, rank: int) -> Draft:
        if isinstance(x, fx.Node) and isinstance(self.seen.get(x), Tensor):
            return self._draft(x, user, rank)
        number = self.seen[x] if isinstance(x, fx.Node) else x
        if not isinstance(number, int | float):
            self._refuse(user, f"arithmetic with {type(number).__name__}")
        rows = torch.full((1, 1, *[1] * rank), float(number))
        return self._constant(f"{user.name}.number", rows)

    def _constant(self, name: str, rows: Tensor) -> Draft:
        settings = {"steps": False, "classes": False}
        draft = Draft(self._name(name), "table", [], tuple(rows.shape[2:]), settings=settings)
        draft.tensors = {"rows": rows}
        self.drafts.append(draft)
        return draft

    def _cat(self, node: fx.Node) -> None:
        parts = node.args[0]
        axis = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
        assert isinstance(parts, list | tuple) and isinstance(axis, int)
        self._add(node, "concat", list(parts), {"axis": self._axis(axis, node)})

    def _permute(self, node: fx.Node) -> None:
        rank = len(self._shape(node)) + 1
        axes = list(range(rank))
        given = [a for a in node.args[1:] if isinstance(a, int)]
        if not given and len(node.args) > 1 and isinstance(node.args[1], list | tuple):
            given = [a for a in node.args[1] if isinstance(a, int)]
        given = [a % rank for a in given]
        if node.target in ("transpose", torch.transpose) and len(given) == 2:
            axes[given[0]], axes[given[1]] = axes[given[1]], axes[given[0]]
        else:
            axes = given
        if not axes or axes[0] != 0:
            self._refuse(node, "moving the batch to another axis")
        self._add(node, "permute", node.args[:1], {"axes": [a - 1 for a in axes[1:]]})

    def _interpolate(self, node: fx.Node) -> None:
        named = dict(zip(("size", "scale_factor", "mode"), node.args[1:], strict=False))
        named |= node.kwargs
        factor = named.get("scale_factor")
        plain = named.get("size") is None and named.get("mode", "nearest") == "nearest"
        if not plain or not isinstance(factor, int | float) or factor != int(factor):
            self._refuse(node, "interpolation but by whole factors, to the nearest")
        assert isinstance(factor, int | float)
        self._add(node, "upsample", node.args[:1], {"factor": int(factor)})

    def _shuffle(self, node: fx.Node) -> None:
        channels, height, width = self._shape(node)
        factor = node.args[1] if len(node.args) > 1 else node.kwargs["upscale_factor"]
        assert isinstance(factor, int)
        wide = (channels, factor, factor, height // factor, width // factor)
        parts = self._push(Draft(self._name(f"{node.name}.apart"), "reshape",
                                 [self._draft(node.args[0], node)], wide))  # fmt: skip
        moved = self._push(Draft(self._name(f"{node.name}.moved"), "permute", [parts],
                                 (channels, wide[3], factor, wide[4], factor),
                                 settings={"axes": [0, 3, 1, 4, 2]}))  # fmt: skip
        self._push(Draft(self._name(node.name), "reshape", [moved], self._shape(node), value=node))

    def _item(self, node: fx.Node) -> None:
        source, key = node.args
        assert isinstance(source, fx.Node)
        if source.target in ("chunk", torch.chunk) and isinstance(key, int):
            whole = source.args[0]
            axis = source.kwargs.get("dim", source.args[2] if len(source.args) > 2 else 0)
            assert isinstance(axis, int)
            axis = self._axis(axis, node)
            start = sum(part.shape[axis + 1] for part in self.seen[source][:key])
            stop = start + self._shape(node)[axis]
            settings = {"axis": axis, "start": start, "stop": stop}
            self._add(node, "slice", [whole], settings)
            return
        keys = key if isinstance(key, tuple) else (key,)
        if not all(one is None or one == slice(None) or one is Ellipsis for one in keys):
            self._refuse(node, "indexing other than for more axes")
        self._add(node, "reshape", [source])

    def _axis(self, axis: int, node: fx.Node) -> int:
        """An axis of the batch's values as one without the batch."""
        found = axis % (len(self._shape(node)) + 1) - 1
        if found < 0:
            self._refuse(node, "putting rows of the batch together")
        return found

    def _shape(self, node: fx.Node) -> tuple[int, ...]:
        return tuple(self.seen[node].shape[1:])

    def _add(
        self, node: fx.Node, op: str, inputs: Sequence[Any], settings: dict[str, Any] | None = None
    ) -> None:
        given = [self._draft(x, node) for x in inputs]
        self._push(Draft(self._name(node.name), op, given, self._shape(node), value=node,
                         settings=settings or {}))  # fmt: skip

    def _push(self, draft: Draft) -> Draft:
        self.drafts.append(draft)
        if draft.value is not None:
            self.made[draft.value] = draft
        return draft

    def _int8(self, draft: Draft, layer: str) -> Draft:
        """What the device reads: as it is, or rounded to the scales of a layer."""
        if draft.gives_int8:
            return draft
        if (draft, layer) not in self.rounded:
            name = self._name(f"{layer or draft.name}.rounded")
            self.rounded[draft, layer] = self._push(
                Draft(name, "quantize", [draft], draft.shape, layer=layer)
            )
        return self.rounded[draft, layer]

    def _draft(self, x: Any, user: fx.Node, rank: int | None = None) -> Draft:
        if not isinstance(x, fx.Node) or not isinstance(self.seen.get(x), Tensor):
            self._refuse(user, f"{type(x).__name__} as its input")
        if x not in self.made:
            if not self.sources.is_apart(x):
                self._refuse(user, f"the value {x.name!r} as its input")
            return self._table(x, rank)
        return self.made[x]

    def _table(self, x: fx.Node, rank: int | None) -> Draft:
        """Draft of a value that does not depend on the input; rows are computed later."""
        on, value = self.sources.of[x], self.seen[x]
        if on:
            settings = {"steps": "step" in on, "classes": "class" in on}
            return self._push(Draft(self._name(x.name), "table", [], tuple(value.shape[1:]),
                                    value=x, settings=settings))  # fmt: skip
        ones = max(0, (rank or value.ndim) - value.ndim)
        rows = value.float().reshape(1, 1, *[1] * ones, *value.shape)
        return self._constant(x.name, rows)

    def _name(self, base: str) -> str:
        name, count = base, 1
        while name in self.names:
            count += 1
            name = f"{base}:{count}"
        self.names.add(name)
        return name

    def _refuse(self, node: fx.Node, what: str) -> None:
        raise ConfigError(
            f"node {node.name!r}: must be an operation of integer graphs of time steps, not "
            f"{what}; docs/spec-integer-graph.md lists them"
        )


def _asks_shape(node: fx.Node) -> bool:
    return node.target in ("size", "dim") or (
        node.target is getattr and node.args[1] in ("shape", "ndim", "device", "dtype")
    )
