"""From a transformer in torch to drafts of a graph of tokens: one run on the tape."""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from vq.errors import ConfigError, SignbookError
from vq.integer.tokens.tape import Tape, module_names, tensors_in
from vq.integer.tokens.values import (
    Draft,
    Statistic,
    Value,
    channels_of,
    collected,
    rotation_of,
)

__all__ = ["ATTENTION", "Call", "output_of", "trace_transformer"]

ATTENTION = "scaled_dot_product_attention"
_MOVES = {
    "view", "reshape", "transpose", "permute", "flatten", "unflatten", "squeeze", "unsqueeze",
    "expand", "expand_as", "contiguous", "clone", "chunk", "split", "tensor_split", "unbind",
    "__getitem__", "narrow", "select", "repeat_interleave", "movedim", "swapaxes", "swapdims",
    "view_as", "reshape_as", "detach", "repeat", "flip", "roll", "index_select",
}  # fmt: skip
_SAME = {
    "to",
    "float",
    "type",
    "type_as",
    "double",
    "dropout",
    "dropout_",
    "identity",
    "requires_grad_",
}
_FUNCTIONS = {
    "gelu", "silu", "relu", "relu6", "tanh", "sigmoid", "exp", "softplus", "hardtanh", "hardswish",
    "hardsigmoid", "mish", "elu", "leaky_relu", "celu", "selu", "erf",
}  # fmt: skip
_ADDS = {"add", "__add__", "__radd__", "__iadd__", "add_"}
_SUBS = {"sub", "__sub__", "__isub__", "sub_", "subtract"}
_MULS = {"mul", "__mul__", "__rmul__", "__imul__", "mul_", "multiply"}
_DIVS = {"div", "__truediv__", "__itruediv__", "div_", "true_divide"}
#: A mask that is added lets pass what is above this.
_MASKED = -1e4


@dataclass(frozen=True, eq=False)
class Call:
    """Arguments of a model: what is followed, the padding's mask, everything else.

    Attributes
    ----------
    args, kwargs
    main : Tensor
        [B, T] tokens, or an image [B, C, H, W].
    mask : [B, T] Tensor, optional
        1 for tokens, 0 for padding, which is behind them.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    main: Tensor
    mask: Tensor | None = None


@dataclass(frozen=True, eq=False)
class _Opaque:
    """A value that no rule covers; it is refused where a node would read it."""

    what: str
    module: str


class _Ids:
    """The tokens themselves."""


def output_of(found: Any) -> Tensor | None:
    """The tensor that a model is asked for."""
    for name in ("logits", "last_hidden_state"):
        if isinstance(getattr(found, name, None), Tensor):
            found = getattr(found, name)
    if isinstance(found, tuple | list) and found:
        found = found[0]
    return found if isinstance(found, Tensor) else None


def trace_transformer(model: nn.Module, call: Call) -> tuple[list[Draft], float]:
    """Run a model and draw up its graph.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode.
    call : Call
        Of two texts or images; texts are as long as the context, but for padding of the second.

    Returns
    -------
    drafts : list of Draft
        In execution order; the last gives the output.
    factor : float
        What the output is multiplied by.

    Raises
    ------
    ConfigError
        At an operation that has no rule in integers; the message names it and its module.
    """
    with module_names(model) as names:
        translation = _Translation(call)
        tape = Tape(translation.see, names)
        tape.follow(call.main)
        try:
            with tape:
                found = model(*call.args, **call.kwargs)
        except SignbookError:
            raise
        except Exception as error:  # a model is the user's code
            reason = str(error).strip().partition("\n")[0][:200]
            raise ConfigError(
                f"model must take inputs {list(call.main.shape)}, but {reason}; a context may be "
                "too long for it"
            ) from error
    return translation.result(output_of(found))


class _Translation:
    """Draws up drafts while the model runs."""

    def __init__(self, call: Call) -> None:
        self.call, self.batch = call, len(call.main)
        self.tokens = not call.main.is_floating_point()
        self.drafts: list[Draft] = []
        self.known: dict[Any, Draft] = {}
        self.names: set[str] = set()
        self.values: Any = WeakIdKeyDictionary()
        self.place, self.module = -1, ""
        if self.tokens:
            count = call.main.shape[1]
            self._push("tokens", "tokens", [], (1,), rows=count, growing=True)
            self.values[call.main] = _Ids()
        else:
            shape = tuple(call.main.shape[1:])
            first = self._push("input", "input", [], shape, rows=0, growing=False)
            self.values[call.main] = Value(first, [(1.0, first.labels(self.batch))], -1)

    def result(self, output: Tensor | None) -> tuple[list[Draft], float]:
        self.module = ""
        if output is None or output not in self.values:
            raise ConfigError("model must give one tensor that depends on its input")
        last, factor = self._read(self.values[output])
        needed, waiting = set[int](), [last]
        while waiting:
            one = waiting.pop()
            if id(one) not in needed:
                needed.add(id(one))
                waiting += [given for given, _ in one.inputs]
        drafts = [one for one in self.drafts if id(one) in needed]
        if drafts[-1] is not last:
            raise ConfigError("model must end with the operation that gives its output")
        return drafts, factor

    def see(
        self, place: int, module: str, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any],
        found: Any,
    ) -> None:  # fmt: skip
        """Understand one call."""
        self.place, self.module = place, module
        name = getattr(func, "__name__", str(func))
        given = [self._of(one) for one in tensors_in([*args, *kwargs.values()])]
        results = list(tensors_in([found]))
        hidden = next((one for one in given if isinstance(one, _Opaque)), None)
        if hidden is not None:
            made: list[Any] = [hidden] * len(results)
        else:
            made = self._understood(name, func, args, kwargs, found)
        for one, value in zip(results, made, strict=True):
            self.values[one] = value

    def _understood(
        self, name: str, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], found: Any
    ) -> list[Any]:
        x = self._of(args[0]) if args else None
        if isinstance(x, _Ids) and name != "embedding":
            plain = name in _SAME or name in ("view", "contiguous", "long", "reshape")
            same = plain and found.shape == self.call.main.shape
            return [x] if same else self._hidden(name, found)
        if isinstance(x, Statistic):
            return [self._statistic(name, x, args, kwargs)]
        if name in ("cat", "concat", "concatenate", "stack"):
            return [self._cat(func, args, kwargs)]
        if name in _MOVES and isinstance(x, Value):
            if sum(self._of(one) is not None for one in tensors_in([*args[1:], *kwargs.values()])):
                return self._hidden(name, found)
            return list(x.moved(lambda t: func(t, *args[1:], **kwargs), self.place))
        if name in _SAME and isinstance(x, Value):
            if name.startswith("dropout") and kwargs.get("training", True):
                self._refuse("dropout at run time")
            return [Value(x.source, x.terms, self.place, x.constant)]
        handler = self._handler(name)
        if handler is None:
            return self._hidden(name, found)
        value = handler(name, func, args, kwargs)
        if isinstance(value, Draft):
            value.at = self.place
            labels = value.labels(self.batch)
            value = Value(value, [(1.0, labels.reshape(found.shape))], self.place)
        return [value]

    def _handler(self, name: str) -> Callable[..., Any] | None:
        if name in _FUNCTIONS or (name.endswith("_") and name[:-1] in _FUNCTIONS):
            return self._function
        if name in _ADDS | _SUBS | {"rsub"}:
            return self._sum
        if name in _MULS | _DIVS:
            return self._product
        return {
            "linear": self._linear, "conv2d": self._conv, "embedding": self._embedding,
            "layer_norm": self._layer_norm, "rms_norm": self._rms_norm, "pow": self._square,
            "square": self._square, "neg": self._negative, "mean": self._mean, "sum": self._mean,
            "normalize": self._normalize, ATTENTION: self._attention,
        }.get(name)  # fmt: skip

    # What only computes with numbers

    def _sum(self, name: str, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        first, second = args[:2]
        if name == "rsub":
            first, second = second, first
        sign = 1.0 if name in _ADDS else -1.0
        if kwargs.get("alpha", 1) != 1 or len(args) > 2:
            self._refuse(f"{name} with alpha")
        x, y = self._of(first), self._of(second)
        if isinstance(x, Value) and y is None:
            return x.plus(_negative(second) if sign < 0 else second, self.place)
        if x is None and isinstance(y, Value):
            return y.times(sign, self.place).plus(first, self.place)
        if not isinstance(x, Value) or not isinstance(y, Value):
            self._refuse(f"{name} of these")
        y = y.times(sign, self.place)
        turned = any(isinstance(c, Tensor) for one in (x, y) for c, _ in one.terms)
        if x.source is y.source and x.shape == y.shape and turned:
            return x.joined(y, self.place)
        if x.shape != y.shape:
            self._refuse(f"{name} of shapes {list(x.shape)} and {list(y.shape)}")
        given = [self._read(x), self._read(y)]
        return self._push(name.strip("_"), "add", given, given[0][0].shape, like=given[0][0])

    def _product(self, name: str, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        x, y = (self._of(one) for one in args[:2])
        if kwargs.get("rounding_mode") is not None:
            self._refuse(f"{name} with rounding")
        if name in _DIVS:
            if isinstance(x, Value) and y is None:
                other = args[1]
                inverse = 1 / other.double() if isinstance(other, Tensor) else 1 / other
                return x.times(inverse, self.place)
            self._refuse("a quotient of values")
        if x is None or y is None:
            value, other = (x, args[1]) if y is None else (y, args[0])
            if isinstance(value, Value) and isinstance(other, Tensor | int | float):
                return value.times(other, self.place)
        if isinstance(y, Statistic) and isinstance(x, Value):
            return self._normed(x, y)
        if isinstance(x, Value) and args[0] is args[1]:
            return Statistic(x, "square")
        if not isinstance(x, Value) or not isinstance(y, Value) or x.shape != y.shape:
            self._refuse(f"{name} of these")
        given = [self._read(x), self._read(y)]
        return self._push(name.strip("_"), "product", given, given[0][0].shape, like=given[0][0])

    def _negative(self, name: str, func: Any, args: Sequence[Any], kwargs: Any) -> Any:
        return self._value(args[0], name).times(-1.0, self.place)

    def _square(self, name: str, func: Any, args: Sequence[Any], kwargs: Any) -> Any:
        x = self._value(args[0], name)
        if name == "pow" and args[1] != 2:
            self._refuse(f"a power of {args[1]}")
        return Statistic(x, "square")

    def _statistic(
        self, name: str, x: Statistic, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """The next step of ``x * rsqrt(mean(x * x) + eps)``."""
        other = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("other"))
        if name in ("mean",) and x.stage == "square" and other in (-1, (-1,), [-1]):
            return x.next("mean")
        if name in _ADDS and x.stage == "mean" and isinstance(other, float):
            return x.next("mean", other)
        if name == "rsqrt" and x.stage == "mean":
            return x.next("rsqrt")
        if name in _MULS and x.stage == "rsqrt":
            value = self._of(other)
            if isinstance(value, Value):
                made = self._normed(value, x)
                made.at = self.place
                labels = made.labels(self.batch).reshape(value.shape)
                return Value(made, [(1.0, labels)], self.place)
        if name in _SAME or name in _MOVES:
            return x if name in _SAME else self._hidden(name, None)[0]
        return _Opaque(f"{name} of squares", self.module)

    def _normed(self, x: Value, statistic: Statistic) -> Draft:
        base = statistic.value
        same = x.source is base.source and statistic.stage == "rsqrt" and x.plain and base.plain
        if not same or not torch.equal(x.terms[0][1], base.terms[0][1]):
            self._refuse("a product with the root of another value")
        return self._norm("rms_norm", x, None, None, statistic.epsilon)

    # Operations that become nodes

    def _linear(self, name: str, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        weight, bias = _named(args, kwargs, ("weight", "bias"))
        if self._of(weight) is not None:
            self._refuse("a linear whose weight depends on the input")
        x = self._read(self._value(args[0], name))
        made = self._push("linear", "linear", [x], (weight.shape[0],), like=x[0])
        made.weight, made.bias = weight, bias
        return made

    def _conv(self, name: str, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        weight, bias, stride, padding, dilation, groups = _named(
            args, kwargs, ("weight", "bias", "stride", "padding", "dilation", "groups")
        )
        x = self._read(self._value(args[0], name))
        if isinstance(padding, str) or len(x[0].shape) != 3:
            self._refuse(f"a convolution with padding {padding!r}")
        shape = func(torch.zeros(1, *x[0].shape), *args[1:], **kwargs).shape[1:]
        made = self._push("conv2d", "conv", [x], tuple(shape), rows=0, growing=False)
        made.weight, made.bias = weight, bias
        pairs = [(n, n) for n in _each(0 if padding is None else padding)]
        made.settings = {
            "stride": _each(stride or 1), "padding": tuple(pairs),
            "dilation": _each(dilation or 1), "groups": groups or 1,
        }  # fmt: skip
        return made

    def _embedding(self, name: str, func: Any, args: Sequence[Any], kwargs: Any) -> Any:
        weight = args[1] if len(args) > 1 else kwargs["weight"]
        if not isinstance(self._of(args[0]), _Ids):
            self._refuse("an embedding of something other than the tokens")
        first = self.drafts[0]
        first.settings["vocabulary"] = weight.shape[0]
        made = self._push("embedding", "embedding", [(first, 1.0)], (weight.shape[1],), like=first)
        made.weight = weight
        return made

    def _layer_norm(self, name: str, func: Any, args: Sequence[Any], kwargs: Any) -> Any:
        shape, weight, bias, eps = _named(
            args, kwargs, ("normalized_shape", "weight", "bias", "eps")
        )
        x = self._value(args[0], name)
        if len(shape) != 1:
            self._refuse("a layer norm over several axes")
        return self._norm("layer_norm", x, weight, bias, 1e-5 if eps is None else eps)

    def _rms_norm(self, name: str, func: Any, args: Sequence[Any], kwargs: Any) -> Any:
        shape, weight, eps = _named(args, kwargs, ("normalized_shape", "weight", "eps"))
        x = self._value(args[0], name)
        if len(shape) != 1:
            self._refuse("a norm over several axes")
        least = torch.finfo(torch.float32).eps
        return self._norm("rms_norm", x, weight, None, least if eps is None else eps)

    def _normalize(self, name: str, func: Any, args: Sequence[Any], kwargs: Any) -> Any:
        p, dim, eps = _named(args, kwargs, ("p", "dim", "eps"))
        x = self._value(args[0], name)
        last = len(x.shape) - 1
        if p not in (None, 2, 2.0) or (1 if dim is None else dim) not in (last, -1):
            self._refuse("normalize but to the length of rows")
        made = self._norm("rms_norm", x, None, None, (eps or 1e-12) ** 2)
        made.at = self.place
        factor = 1 / math.sqrt(x.shape[-1])
        made.real["stretch"] = 1 / factor  # what the tape shows is smaller
        return Value(made, [(factor, made.labels(self.batch).reshape(x.shape))], self.place)

    def _norm(
        self, op: str, x: Value, weight: Tensor | None, bias: Tensor | None, epsilon: float
    ) -> Draft:
        given = self._read(x)
        made = self._push(op, op, [given], given[0].shape, like=given[0])
        made.weight, made.bias, made.real["epsilon"] = weight, bias, epsilon
        return made

    def _function(
        self, name: str, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        x = self._read(self._value(args[0], name))
        known = {key: value for key, value in kwargs.items() if key != "inplace"}
        own = name.rstrip("_")
        made = self._push(own, "function", [x], x[0].shape, like=x[0])
        made.settings["function"] = own
        plain = getattr(torch, own) if name.endswith("_") else func
        made.real["function"] = lambda grid: plain(grid, *args[1:], **known)
        return made

    def _mean(self, name: str, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """A mean over rows, or the sum of those that are no padding."""
        dim, keeps = _named(args, kwargs, ("dim", "keepdim"))
        x = self._value(args[0], name)
        if dim not in (1, (1,), [1], -2) or len(x.shape) != 3 or len(x.terms) > 1:
            self._refuse(f"a {name} over axes {dim}")
        coefficient, labels = x.terms[0]
        counts: float | Tensor = float(labels.shape[1])
        mask = self.call.mask
        if mask is not None:
            weights = mask.double()[..., None].expand(labels.shape)
            if name == "mean" or not isinstance(coefficient, Tensor):
                self._refuse(f"a {name} over rows that takes padding in")
            if not torch.allclose(coefficient.double(), weights):
                self._refuse(f"a {name} of weighted rows")
            counts, coefficient = mask.double().sum(1), 1.0
        if x.constant is not None or isinstance(coefficient, Tensor):
            self._refuse(f"a {name} of weighted rows")
        source = x.source
        found = None if bool((labels < 0).any()) else channels_of(labels, source, self.batch)
        first = 0 if found is None else int(found[0][0, 0, 0])
        want = None if found is None else source.labels(self.batch)[:, first:]
        if len(source.shape) == 3 or want is None or not torch.equal(want, labels):
            given = self._read(Value(source, [(coefficient, labels)], x.at))
            first = 0
        else:
            given = source, coefficient
        made = self._push("mean", "mean", [given], given[0].shape, rows=1, growing=False)
        made.settings["first"], made.at = first, self.place
        shape = labels[:, :1].shape if keeps else labels[:, 0].shape
        value = Value(made, [(1.0, made.labels(self.batch).reshape(shape))], self.place)
        if name == "mean":
            return value
        made.real["stretch"] = 1 / (float(counts.max()) if isinstance(counts, Tensor) else counts)
        if isinstance(counts, Tensor):
            counts = counts.view(-1, *[1] * (len(shape) - 1))
        return value.times(counts, self.place)

    def _attention(self, name: str, func: Any, args: Sequence[Any], kwargs: Any) -> Any:
        mask, dropout, causal, scale, shared = _named(
            [args[0], *args[3:]], kwargs,
            ("attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa"),
        )  # fmt: skip
        if dropout:
            self._refuse("attention with dropout")
        q, k, v = (self._value(one, name) for one in args[:3])
        heads, size = q.shape[1], q.shape[3]
        if q.shape[2] != k.shape[2] or v.shape[3] != size or len(q.shape) != 4:
            self._refuse("attention to other rows than its own")
        repeats = heads // k.shape[1] if shared else 1
        fewer = next(
            n for n in range(k.shape[1], 0, -1) if k.shape[1] % n == 0 and _same_heads([k, v], n)
        )
        k, v = (one.moved(lambda t: t[:, ::fewer], one.at)[0] for one in (k, v))
        given = [self._heads(one) for one in (q, k, v)]
        made = self._push("attention", "attention", given, (heads * size,), like=given[0][0])
        made.settings = {
            "heads": heads, "kv_heads": heads // (repeats * fewer),
            "causal": self._is_causal(mask, bool(causal), q.shape[2]),
        }  # fmt: skip
        made.real["scale"] = size**-0.5 if scale is None else scale
        made.at = self.place
        labels = made.labels(self.batch).view(self.batch, -1, heads, size).transpose(1, 2)
        return Value(made, [(1.0, labels)], self.place)

    def _is_causal(self, mask: Tensor | None, causal: bool, count: int) -> bool:
        """Whether rows see those before them alone; other masks but padding are refused."""
        valid = torch.ones(self.batch, count, dtype=torch.bool)
        if self.call.mask is not None:
            valid = self.call.mask.bool()
        everything = valid[:, None, :].expand(-1, count, -1)
        before = everything & torch.ones(count, count, dtype=torch.bool).tril()
        if mask is None:
            seen = torch.ones(self.batch, count, count, dtype=torch.bool)
            seen = seen.tril() if causal else seen
        else:
            allowed = mask if mask.dtype == torch.bool else mask > _MASKED
            if mask.dtype != torch.bool and bool((mask[allowed] != 0).any()):
                self._refuse("attention with a bias")
            axes = [1] * (4 - allowed.ndim)
            whole = allowed.reshape(*axes, *allowed.shape).expand(self.batch, -1, count, count)
            if not bool((whole == whole[:, :1]).all()):
                self._refuse("attention with a mask for every head")
            seen = whole[:, 0]
        rows = valid[..., None].expand_as(seen)  # what padding sees does not matter
        for found, want in ((True, before), (False, everything)):
            if bool((seen == want)[rows].all()):
                return found
        if self.call.mask is not None and mask is None:
            self._refuse("attention that takes padding in")
        self._refuse("attention with a mask that is neither causal nor of padding")

    def _heads(self, value: Value) -> tuple[Draft, float]:
        """Rows of all heads for a value [B, H, T, D], turned by position or not."""
        _, heads, count, size = value.shape
        if len(value.terms) == 1:
            (rows,) = value.moved(lambda t: t.transpose(1, 2).reshape(len(t), count, -1), value.at)
            return self._read(rows)
        turn = rotation_of(value, self.batch)
        if turn is None:
            self._refuse("attention of sums other than a rotation by position")
        source, width = value.source, heads * size
        labels = source.labels(self.batch)[..., turn.start : turn.start + width]
        x = self._read(Value(source, [(1.0, labels)], value.at))
        key = "angles", *(_bytes(one) for one in (turn.cosine, turn.sine))
        if key not in self.known:
            made = self._push("angles", "angles", [], (size,), rows=count, growing=source.growing)
            made.settings = {"rows": count}
            made.real = {"cosine": turn.cosine, "sine": turn.sine}
            self.known[key] = made
        given = [x, (self.known[key], 1.0)]
        made = self._push("rotary", "rotary", given, (width,), like=x[0])
        made.settings = {"heads": heads, "pairs": turn.pairs}
        made.at = value.at
        return made, 1.0

    def _cat(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        parts = [one for one in args[0] if one.numel()]
        values = [one if self._of(one) is None else self._of(one) for one in parts]
        if any(not isinstance(one, Value | Tensor) for one in values):
            self._refuse("putting these together")
        found = collected(values, lambda some: func(some, *args[1:], **kwargs), self.place)
        return found or _Opaque("putting different values together", self.module)

    # From values to nodes

    def _read(self, value: Any) -> tuple[Draft, float]:
        """The node that gives a value as rows or as a map, and what it is multiplied by."""
        if isinstance(value, _Opaque):
            self.module = value.module
            self._refuse(value.what)
        if not isinstance(value, Value):
            self._refuse("tokens or squares themselves as an input")
        if len(value.terms) > 1:
            self._refuse("a sum of parts of one value")
        (coefficient, labels), source = value.terms[0], value.source
        if isinstance(coefficient, Tensor):
            source, coefficient = self._gained(value, coefficient), 1.0
        if len(source.shape) == 3:
            found = self._of_map(source, labels, value)
        else:
            found = self._of_rows(source, labels, value)
        if value.constant is not None:
            found, coefficient = self._shifted(found, coefficient, value), 1.0
        return found, coefficient

    def _gained(self, value: Value, coefficient: Tensor) -> Draft:
        """A norm or a linear that takes a gain for every channel in."""
        source = value.source
        gain = coefficient.reshape(-1, coefficient.shape[-1])
        whole = torch.equal(value.terms[0][1].reshape(-1), source.labels(self.batch).reshape(-1))
        fits = source.op in ("rms_norm", "layer_norm", "linear") and whole
        if not fits or bool((gain != gain[:1]).any()):
            self._refuse("a product with a constant that is no gain of a norm or a linear")
        key = "gain", id(source), _bytes(gain[0])
        if key not in self.known:
            made = self._push(source.op, source.op, source.inputs, source.shape, like=source)
            made.real, made.at = dict(source.real), value.at
            made.bias = None if source.bias is None else gain[0] * source.bias
            if source.op == "linear":
                made.weight, made.real["gain"] = source.weight, gain[0]
            else:
                made.weight = gain[0] if source.weight is None else gain[0] * source.weight
            made.name, source.name = source.name, made.name
            self.known[key] = made
        return self.known[key]

    def _of_map(self, source: Draft, labels: Tensor, value: Value) -> Draft:
        own = source.labels(self.batch)
        if torch.equal(own, labels):
            return source
        channels, places = source.shape[0], math.prod(source.shape[1:])
        rows = self._once(
            ("places",), "places", source, source.shape[:1], {}, rows=places, growing=False
        )
        text, rest = labels // (channels * places), labels % (channels * places)
        moved = (text * places + rest % places) * channels + rest // places
        return self._of_rows(rows, torch.where(labels < 0, -1, moved), value)

    def _of_rows(self, source: Draft, labels: Tensor, value: Value) -> Draft:
        rows = labels[:, None] if labels.ndim == 2 else labels
        if rows.ndim != 3:
            self._refuse(f"a value of {labels.ndim} axes as an input")
        before = int((rows[0, :, 0] < 0).sum())
        kept = rows[:, before:]
        found = None if bool((kept < 0).any()) else channels_of(kept, source, self.batch)
        if found is None or not bool((rows[:, :before] < 0).all()):
            self._refuse("rows of several texts in one")
        row, channel = found
        first, width = int(channel[0, 0, 0]), kept.shape[2]
        line = row[0, :, 0]
        if not bool(
            (channel == first + torch.arange(width)).all() and (row == line[:, None]).all()
        ):
            self._refuse("channels or rows in another order")
        if (first, width) != (0, source.shape[0]):
            source = self._once(
                ("slice", first, width), "slice", source, (width,), {"start": first},
                rows=source.rows, growing=source.growing,
            )  # fmt: skip
        count = source.rows
        if len(line) == 1 and (count > 1 or source.growing):
            at = int(line[0])
            source = self._once(
                ("select", at), "select", source, (width,), {"row": at}, rows=1, growing=False
            )
        elif len(line) != count or not bool((line == torch.arange(count)).all()):
            self._refuse("a part of the rows")
        if before:
            source = self._once(
                ("place", before), "place", source, (width,), {"before": before},
                rows=count + before, growing=False,
            )  # fmt: skip
        return source

    def _shifted(self, source: Draft, coefficient: float, value: Value) -> Draft:
        """With constant rows added."""
        assert value.constant is not None
        rows = value.constant[0] if value.constant.ndim == 3 else value.constant[:1]
        whole = value.constant if value.constant.ndim == 3 else value.constant[:, None]
        if len(source.shape) != 1 or not bool((whole == rows).all()):
            self._refuse("a constant that differs between texts")
        key = "constant", id(source), coefficient, _bytes(rows)
        if key in self.known:
            return self.known[key]
        made = self._push("constant", "constant", [], source.shape, rows=len(rows),
                          growing=source.growing)  # fmt: skip
        made.settings, made.real = {"rows": len(rows)}, {"rows": rows}
        given = [(source, coefficient), (made, 1.0)]
        found = self._push("add", "add", given, source.shape, like=source)
        found.at = value.at
        self.known[key] = found
        return found

    def _once(
        self, key: tuple[Any, ...], op: str, source: Draft, shape: tuple[int, ...],
        settings: dict[str, Any], *, rows: int, growing: bool,
    ) -> Draft:  # fmt: skip
        """A node that only moves what another gives; the same one for everybody who asks."""
        whole = (*key, id(source))
        if whole not in self.known:
            made = self._push(op, op, [(source, 1.0)], shape, rows=rows, growing=growing)
            made.settings = settings
            self.known[whole] = made
        return self.known[whole]

    def _push(
        self, what: str, op: str, inputs: list[tuple[Draft, float]], shape: tuple[int, ...],
        *, like: Draft | None = None, rows: int = 0, growing: bool = False,
    ) -> Draft:  # fmt: skip
        if like is not None:
            rows, growing = like.rows, like.growing
        own = op in ("linear", "conv", "embedding")
        name = self._name(
            self.module if own and self.module else f"{self.module}.{what}".lstrip(".")
        )
        made = Draft(name, op, inputs, shape, rows, growing)
        self.drafts.append(made)
        return made

    def _name(self, base: str) -> str:
        name, count = base, 1
        while name in self.names:
            count += 1
            name = f"{base}:{count}"
        self.names.add(name)
        return name

    def _of(self, x: object) -> Any:
        return self.values.get(x) if isinstance(x, Tensor) else None

    def _value(self, x: object, name: str) -> Value:
        found = self._of(x)
        if not isinstance(found, Value):
            self._refuse(f"{name} of something other than values")
        return found

    def _hidden(self, name: str, found: Any) -> list[Any]:
        results = list(tensors_in([found])) if found is not None else [None]
        return [_Opaque(name, self.module)] * len(results)

    def _refuse(self, what: str) -> NoReturn:
        where = f"layer {self.module!r}" if self.module else "model"
        raise ConfigError(
            f"{where}: must compute what integer graphs of tokens have a rule for, not {what}; "
            "docs/spec-integer-graph.md lists them"
        )


def _named(args: Sequence[Any], kwargs: Mapping[str, Any], names: Sequence[str]) -> list[Any]:
    """Arguments after the first, by position or by name; None where there is none."""
    return [args[i] if len(args) > i else kwargs.get(name) for i, name in enumerate(names, start=1)]


def _negative(x: Any) -> Any:
    return operator.neg(x)


def _each(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value, value)


def _bytes(tensor: Tensor) -> bytes:
    return tensor.float().contiguous().numpy().tobytes()


def _same_heads(values: Sequence[Value], repeats: int) -> bool:
    """Whether heads are so often the same, one after the other."""
    for value in values:
        for c, labels in value.terms:
            for one in (labels, c) if isinstance(c, Tensor) else (labels,):
                if not torch.equal(one, one[:, ::repeats].repeat_interleave(repeats, 1)):
                    return False
    return True
