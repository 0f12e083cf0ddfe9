"""From a torch model to a draft of its integer graph: torch.fx, norms and ReLUs folded away."""

import operator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from vq.errors import ConfigError
from vq.layers import op_of

__all__ = ["Draft", "Traced", "trace_model"]

_UNWRITABLE = frozenset('"\\\n\r')


@dataclass(eq=False)
class Draft:
    """A node whose numbers are still unknown.

    Attributes
    ----------
    name, op, inputs, layer, relu
        As in :class:`vq.integer.graph.Node`.
    value : fx.Node
        Where the real model computes this node's output.
    attributes : dict
        Further fields of the node, such as ``stride``.
    norm : module, optional
        Batch norm to fold.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    value: fx.Node
    layer: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)
    norm: nn.Module | None = None
    relu: bool = False


@dataclass(frozen=True, eq=False)
class Traced:
    """Drafts in execution order, and the traced model that computes their values.

    ``gain`` and ``offset`` (float64, [] or [C, 1, ...]) are what the model does to its input
    before anything else, such as subtracting a mean.
    """

    module: fx.GraphModule
    drafts: list[Draft]
    gain: Tensor
    offset: Tensor


def trace_model(model: nn.Module) -> Traced:
    """Trace a model of one tensor input and one tensor output.

    Raises
    ------
    ConfigError
        If torch.fx cannot follow it or write its names, or it has an operation that no integer
        graph has; the message names both.
    """
    for name, _ in model.named_modules():
        if not _UNWRITABLE.isdisjoint(name):
            raise ConfigError(
                f"module {name!r}: name must be without double quotes, backslashes and line ends, "
                "which torch.fx cannot write into its code; rename it"
            )
    try:
        module = fx.symbolic_trace(model)
    except Exception as error:  # tracing runs the user's code on stand-ins
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"{type(model).__name__} must be traceable by torch.fx, but {reason}"
        ) from error
    return _Translation(module).result()


_RELUS = {F.relu, torch.relu, "relu", "relu_"}
_ADDS = {operator.add, operator.iadd, torch.add, "add", "add_"}
_AFFINE: dict[Any, str] = {
    operator.sub: "sub", torch.sub: "sub", "sub": "sub", operator.mul: "mul", torch.mul: "mul",
    "mul": "mul", operator.truediv: "div", torch.div: "div", "div": "div",
    **dict.fromkeys(_ADDS, "add"),
}  # fmt: skip
_FUSES_RELU = ("linear", "conv", "add", "global_avgpool")
_NOTHING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_POOLS = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)


class _Translation:
    """Walks the traced graph once; every method handles one kind of operation."""

    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module
        self.drafts: list[Draft] = []
        self.made: dict[fx.Node, Draft] = {}
        self.constants: dict[fx.Node, Tensor] = {}
        #: Cut or padded values wait here for the operation that absorbs them.
        self.slices: dict[fx.Node, tuple[fx.Node, tuple[int, ...]]] = {}
        self.pads: dict[fx.Node, tuple[fx.Node, list[tuple[int, int]]]] = {}
        self.shapes: set[fx.Node] = set()
        self.names: set[str] = set()
        self.gain = self.offset = torch.zeros((), dtype=torch.float64)
        self.output: Draft | None = None

    def result(self) -> Traced:
        for node in self.module.graph.nodes:
            getattr(self, f"_{node.op}")(node)
        if self.output is None or self.output is not self.drafts[-1]:
            raise ConfigError("model must end with the operation that gives its output")
        return Traced(self.module, self.drafts, self.gain, self.offset)

    def _placeholder(self, node: fx.Node) -> None:
        if self.drafts:
            raise ConfigError(f"model must have one input, not also {node.name!r}")
        self.gain = torch.ones((), dtype=torch.float64)
        self._add(node, "input", [])

    def _get_attr(self, node: fx.Node) -> None:
        value: Any = self.module
        for part in str(node.target).split("."):
            value = getattr(value, part)
        self.constants[node] = value

    def _output(self, node: fx.Node) -> None:
        value = node.args[0]
        if not isinstance(value, fx.Node):
            raise ConfigError(f"model must give one tensor, not {type(value).__name__}")
        self.output = self._draft(value, node)

    def _call_module(self, node: fx.Node) -> None:
        module = self.module.get_submodule(str(node.target))
        x = node.args[0]
        assert isinstance(x, fx.Node)
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            self._conv(node, x, module)
        elif op_of(module) in ("linear", "linear_t"):
            self._add(node, "linear", [x], layer=str(node.target))
        elif isinstance(module, _NORMS):
            self._norm(node, x, module)
        elif isinstance(module, nn.ReLU):
            self._relu(node, x)
        elif isinstance(module, _NOTHING):
            self._same(node, x)
        elif isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1):
            self._add(node, "flatten", [x])
        elif isinstance(module, _POOLS) and _all_one(module.output_size):
            self._add(node, "global_avgpool", [x], attributes={"keeps": True})
        elif isinstance(module, nn.MaxPool1d | nn.MaxPool2d):
            self._maxpool(node, x, module)
        elif isinstance(module, nn.ZeroPad2d):
            self._pad(node, x, list(module.padding))
        else:
            self._refuse(node, type(module).__name__)

    def _call_method(self, node: fx.Node) -> None:
        self._call_function(node)

    def _call_function(self, node: fx.Node) -> None:
        target, x = node.target, node.args[0] if node.args else None
        if isinstance(x, fx.Node) and (x in self.shapes or _asks_shape(node)):
            self.shapes.add(node)
        elif target in _AFFINE and self._affine(node, _AFFINE[target]):
            pass
        elif target in _ADDS and all(isinstance(a, fx.Node) for a in node.args[:2]):
            self._add(node, "add", list(node.args[:2]))
        elif not isinstance(x, fx.Node):
            self._refuse(node, _name_of(target))
        elif target in _RELUS:
            self._relu(node, x)
        elif target in (F.dropout, "contiguous"):
            self._same(node, x)
        elif target in (torch.flatten, "flatten") and _arguments(node, start_dim=0) == [1]:
            self._add(node, "flatten", [x])
        elif target in ("view", "reshape") and len(node.args) == 3 and node.args[2] == -1:
            self._add(node, "flatten", [x])
        elif target in (torch.mean, "mean"):
            self._mean(node, x)
        elif target in (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d) and _all_one(node.args[1]):
            self._add(node, "global_avgpool", [x], attributes={"keeps": True})
        elif target is operator.getitem:
            self._cut(node, x, node.args[1])
        elif target is F.pad:
            mode, value = _arguments(node, mode="constant", value=None, first=2)
            if mode != "constant" or value not in (None, 0):
                self._refuse(node, "padding with other than zeros")
            self._pad(node, x, node.args[1])
        else:
            self._refuse(node, _name_of(target))

    def _conv(self, node: fx.Node, x: fx.Node, module: nn.Conv1d | nn.Conv2d) -> None:
        rank = len(module.kernel_size)
        if module.padding_mode != "zeros":
            self._refuse(node, f"padding_mode {module.padding_mode!r}")
        if module.padding == "same":
            total = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
            padding = [(n // 2, n - n // 2) for n in total]
        else:
            same = (0,) * rank if isinstance(module.padding, str) else module.padding
            padding = [(n, n) for n in same]
        if x in self.pads:
            x, more = self.pads[x]
            if len(more) > rank:
                self._refuse(node, "a padding of channels before it")
            more = [(0, 0)] * (rank - len(more)) + more
            padding = [(a + c, b + d) for (a, b), (c, d) in zip(padding, more, strict=True)]
        attributes = {
            "stride": module.stride, "padding": tuple(padding),
            "dilation": module.dilation, "groups": module.groups,
        }  # fmt: skip
        self._add(node, "conv", [x], layer=str(node.target), attributes=attributes)

    def _norm(self, node: fx.Node, x: fx.Node, module: nn.Module) -> None:
        draft = self.made.get(x)
        fits = draft is not None and draft.op in ("linear", "conv") and draft.norm is None
        if draft is None or not fits or draft.relu or not self._only_user(draft, x):
            self._refuse(node, "a batch norm that does not directly follow its own layer")
        if getattr(module, "running_var", None) is None:
            self._refuse(node, "a batch norm without running statistics")
        assert draft is not None
        draft.norm, draft.value = module, node
        self.made[node] = draft

    def _relu(self, node: fx.Node, x: fx.Node) -> None:
        draft = self._draft(x, node)
        if draft.op in _FUSES_RELU and not draft.relu and self._only_user(draft, x):
            draft.relu, draft.value = True, node
            self.made[node] = draft
        else:
            self._add(node, "relu", [x])

    def _only_user(self, draft: Draft, x: fx.Node) -> bool:
        return draft.value is x and len(x.users) == 1

    def _same(self, node: fx.Node, x: fx.Node) -> None:
        """The value of ``x`` under another name; ``x`` must not be fused past it."""
        draft = self._draft(x, node)
        draft.value = node if self._only_user(draft, x) else draft.value
        self.made[node] = draft

    def _mean(self, node: fx.Node, x: fx.Node) -> None:
        axes, keeps = _arguments(node, dim=None, keepdim=False)
        given = tuple(axes) if isinstance(axes, list | tuple) else (axes,)
        if given not in ((2, 3), (-2, -1), (2,), (-1,)):
            self._refuse(node, f"a mean over {axes}")
        spatial = len(given) if len(given) == 2 else 1
        self._add(
            node, "global_avgpool", [x], attributes={"keeps": bool(keeps), "spatial": spatial}
        )

    def _maxpool(self, node: fx.Node, x: fx.Node, module: nn.MaxPool1d | nn.MaxPool2d) -> None:
        rank = 1 if isinstance(module, nn.MaxPool1d) else 2
        if module.ceil_mode or module.return_indices or set(_each(module.dilation, rank)) != {1}:
            self._refuse(node, "max pooling with ceil_mode, return_indices or dilation")
        attributes = {
            "kernel": _each(module.kernel_size, rank),
            "stride": _each(module.stride, rank),
            "padding": tuple((n, n) for n in _each(module.padding, rank)),
            "dilation": (1,) * rank,
        }
        self._add(node, "maxpool", [x], attributes=attributes)

    def _cut(self, node: fx.Node, x: fx.Node, key: Any) -> None:
        """``x[:, :, ::s, ::s]``; anything else of a tensor is refused."""
        parts = key if isinstance(key, tuple) else (key,)
        plain = all(isinstance(p, slice) and p.start in (None, 0) and p.stop is None for p in parts)
        steps = [1 if p.step is None else p.step for p in parts] if plain else []
        if not plain or not 3 <= len(parts) <= 4 or steps[:2] != [1, 1]:
            self._refuse(node, "indexing other than every s-th position of the spatial axes")
        self.slices[node] = x, tuple(steps[2:])

    def _pad(self, node: fx.Node, x: fx.Node, widths: Any) -> None:
        pairs = [(widths[i], widths[i + 1]) for i in range(0, len(widths), 2)][::-1]
        if any(n < 0 for pair in pairs for n in pair):
            self._refuse(node, "negative padding")
        # How many axes a value has is not known here. Three pairs reach the channels of images.
        source, steps = self.slices.get(x, (x, (1, 1)))
        channels_only = len(pairs) == len(steps) + 1 and not any(any(p) for p in pairs[1:])
        if channels_only and (x in self.slices or any(pairs[0])):
            attributes = {"stride": steps, "channels": pairs[0]}
            self._add(node, "shortcut", [source], attributes=attributes)
        else:
            self.pads[node] = x, pairs

    def _affine(self, node: fx.Node, kind: str) -> bool:
        """Fold arithmetic with constants at the input into its quantisation, if it is that."""
        x, other = [*node.args, None][:2]
        if kind in ("add", "mul") and not self._is_input(x):
            x, other = other, x
        if not self._is_input(x) or node.kwargs:
            return False
        if isinstance(other, int | float):
            constant = torch.tensor(float(other), dtype=torch.float64)
        elif isinstance(other, fx.Node) and other in self.constants:
            constant = self.constants[other].detach().cpu().double()
        else:
            return False
        draft = self.drafts[0]
        assert isinstance(x, fx.Node)
        if not self._only_user(draft, x):
            self._refuse(node, "arithmetic on an input that is also used as it is")
        if kind in ("mul", "div"):
            factor = constant if kind == "mul" else 1 / constant
            self.gain, self.offset = self.gain * factor, self.offset * factor
        else:
            self.offset = self.offset + (constant if kind == "add" else -constant)
        draft.value = node
        self.made[node] = draft
        return True

    def _is_input(self, x: object) -> bool:
        return isinstance(x, fx.Node) and x in self.made and self.made[x] is self.drafts[0]

    def _add(
        self,
        node: fx.Node,
        op: str,
        inputs: list[Any],
        *,
        layer: str = "",
        attributes: dict[str, Any] | None = None,
    ) -> None:
        names = tuple(self._draft(x, node).name for x in inputs)
        draft = Draft(self._name(node, layer), op, names, node, layer, attributes or {})
        self.drafts.append(draft)
        self.made[node] = draft

    def _draft(self, x: fx.Node, user: fx.Node) -> Draft:
        if x in self.slices:
            source, steps = self.slices.pop(x)
            attributes = {"stride": steps, "channels": (0, 0)}
            self._add(x, "shortcut", [source], attributes=attributes)
        if x not in self.made:
            what = "padding" if x in self.pads else f"the value {x.name!r}"
            self._refuse(user, f"{what} as its input")
        return self.made[x]

    def _name(self, node: fx.Node, layer: str) -> str:
        """The layer's name, or the operation's inside the module that calls it; unique."""
        stack = node.meta.get("nn_module_stack") or {}
        path = next(reversed(stack.values()))[0] if stack and node.op != "call_module" else ""
        own = str(node.target) if node.op == "call_module" else _name_of(node.target)
        base = layer or f"{path}.{own}".lstrip(".")
        name, count = base, 1
        while name in self.names:
            count += 1
            name = f"{base}:{count}"
        self.names.add(name)
        return name

    def _refuse(self, node: fx.Node, what: str) -> None:
        raise ConfigError(
            f"node {self._name(node, '')!r}: must be an operation of integer graphs, not {what}; "
            "docs/spec-integer-graph.md lists them"
        )


def _asks_shape(node: fx.Node) -> bool:
    return node.target in ("size", "dim") or (
        node.target is getattr and node.args[1] in ("shape", "ndim")
    )


def _name_of(target: Any) -> str:
    return target if isinstance(target, str) else getattr(target, "__name__", str(target))


def _each(value: Any, rank: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,) * rank


def _all_one(size: Any) -> bool:
    return set(_each(size, 1)) == {1}


def _arguments(node: fx.Node, *, first: int = 1, **defaults: Any) -> list[Any]:
    """Arguments of a call by position from ``first`` on, or by name."""
    return [
        node.args[first + i] if len(node.args) > first + i else node.kwargs.get(name, default)
        for i, (name, default) in enumerate(defaults.items())
    ]
