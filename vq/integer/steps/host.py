"""What the host computes between layers: float32, a function of numpy for each operation.

These are the only numbers of a graph of time steps that are not integers. The golden model and
a simulated accelerator call the same functions, so that both read equal values from them. Means,
variances and shares of attention are summed up in float64 and rounded once.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["HOST", "HostOp"]

F32 = NDArray[np.float32]
Shape = tuple[int, ...]
Settings = Mapping[str, Any]
Tensors = Mapping[str, F32]
_ERF = np.frompyfunc(math.erf, 1, 1)


@dataclass(frozen=True)
class HostOp:
    """One operation.

    Attributes
    ----------
    inputs : int or None
        How many; None for at least one.
    shape : callable
        ``shape(settings, shapes, own)``: what it gives for inputs of these shapes, without the
        batch; None if it cannot take them. Its own shape is looked at where nothing else tells.
    run : callable
        ``run(settings, values, tensors, own)`` on float32 [B, ...].
    settings : mapping of str to type
        A list is of integers.
    tensors : callable
        ``tensors(settings, shapes)``: what it has in the file, with shapes. Where the setting
        "module" is not empty, that module's kept tensors of these names, if there are such.
    """

    inputs: int | None
    shape: Callable[[Settings, Sequence[Shape], Shape], Shape | None]
    run: Callable[[Settings, Sequence[F32], Tensors, Shape], F32]
    settings: Mapping[str, type] = field(default_factory=dict)
    tensors: Callable[[Settings, Sequence[Shape]], Mapping[str, Shape]] = lambda s, x: {}


def _same(settings: Settings, shapes: Sequence[Shape], own: Shape) -> Shape:
    return shapes[0]


def _spread(settings: Settings, shapes: Sequence[Shape], own: Shape) -> Shape | None:
    """Of two that are of one rank, axes of 1 being repeated."""
    first, second = shapes
    if len(first) != len(second):
        return None
    fits = all(a == b or 1 in (a, b) for a, b in zip(first, second, strict=True))
    return tuple(map(max, first, second)) if fits else None


def _binary(function: Callable[[F32, F32], F32]) -> HostOp:
    return HostOp(2, _spread, lambda settings, x, tensors, own: function(x[0], x[1]))


def _silu(settings: Settings, values: Sequence[F32], tensors: Tensors, own: Shape) -> F32:
    (x,) = values
    with np.errstate(over="ignore"):
        found: F32 = (x / (np.float32(1) + np.exp(-x))).astype(np.float32)
    return found


def _gelu(settings: Settings, values: Sequence[F32], tensors: Tensors, own: Shape) -> F32:
    x = values[0].astype(np.float64)
    if settings["tanh"]:
        share: NDArray[np.float64] = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    else:
        share = np.asarray(_ERF(x / math.sqrt(2)), np.float64)
    found: F32 = (0.5 * x * (1 + share)).astype(np.float32)
    return found


def _normed(x: F32, eps: F32) -> F32:
    """Rows [..., n] of mean 0 and variance 1."""
    wide = x.astype(np.float64)
    off = wide - wide.mean(axis=-1, keepdims=True)
    found: F32 = (off / np.sqrt((off * off).mean(axis=-1, keepdims=True) + float(eps[0]))).astype(
        np.float32
    )
    return found


def _affine(x: F32, tensors: Tensors, shape: Shape) -> F32:
    if "weight" not in tensors:
        return x
    return x * tensors["weight"].reshape(shape) + tensors["bias"].reshape(shape)


def _group_norm(settings: Settings, values: Sequence[F32], tensors: Tensors, own: Shape) -> F32:
    (x,) = values
    normed = _normed(x.reshape(len(x), settings["groups"], -1), tensors["eps"]).reshape(x.shape)
    return _affine(normed, tensors, (own[0], *[1] * (len(own) - 1)))


def _grouped(settings: Settings, shapes: Sequence[Shape], own: Shape) -> Shape | None:
    groups = settings["groups"]
    return shapes[0] if groups > 0 and shapes[0][0] % groups == 0 else None


def _layer_norm(settings: Settings, values: Sequence[F32], tensors: Tensors, own: Shape) -> F32:
    (x,) = values
    inner = own[len(own) - settings["axes"] :]
    normed = _normed(x.reshape(*x.shape[: x.ndim - len(inner)], -1), tensors["eps"])
    return _affine(normed.reshape(x.shape), tensors, inner)


def _layered(settings: Settings, shapes: Sequence[Shape], own: Shape) -> Shape | None:
    return shapes[0] if 1 <= settings["axes"] <= len(shapes[0]) else None


def _norms(settings: Settings, shape: Shape) -> dict[str, Shape]:
    return {"eps": (1,), **({"weight": shape, "bias": shape} if settings["affine"] else {})}


def _attention(settings: Settings, values: Sequence[F32], tensors: Tensors, own: Shape) -> F32:
    """``softmax(q k^T / sqrt(width)) v``, each [B, heads, tokens, width]."""
    q, k, v = (x.astype(np.float64) for x in values)
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    found: F32 = (shares @ v / shares.sum(axis=-1, keepdims=True)).astype(np.float32)
    return found


def _attended(settings: Settings, shapes: Sequence[Shape], own: Shape) -> Shape | None:
    q, k, v = shapes
    fits = len(q) == len(k) == len(v) == 3 and k[:2] == v[:2] and q[::2] == k[::2]
    return (*q[:2], v[2]) if fits else None


def _joined(settings: Settings, shapes: Sequence[Shape], own: Shape) -> Shape | None:
    axis, first = settings["axis"], shapes[0]
    if not 0 <= axis < len(first):
        return None
    fits = all(
        len(x) == len(first) and x[:axis] == first[:axis] and x[axis + 1 :] == first[axis + 1 :]
        for x in shapes
    )
    return (*first[:axis], sum(x[axis] for x in shapes), *first[axis + 1 :]) if fits else None


def _reshaped(settings: Settings, shapes: Sequence[Shape], own: Shape) -> Shape | None:
    return own if math.prod(own) == math.prod(shapes[0]) else None


def _permuted(settings: Settings, shapes: Sequence[Shape], own: Shape) -> Shape | None:
    axes = settings["axes"]
    fits = sorted(axes) == list(range(len(shapes[0])))
    return tuple(shapes[0][axis] for axis in axes) if fits else None


def _sliced(settings: Settings, shapes: Sequence[Shape], own: Shape) -> Shape | None:
    axis, start, stop = (settings[name] for name in ("axis", "start", "stop"))
    x = shapes[0]
    if not (0 <= axis < len(x) and 0 <= start < stop <= x[axis]):
        return None
    return (*x[:axis], stop - start, *x[axis + 1 :])


def _slice(settings: Settings, values: Sequence[F32], tensors: Tensors, own: Shape) -> F32:
    part = slice(settings["start"], settings["stop"])
    return values[0][(*[slice(None)] * (settings["axis"] + 1), part)]


def _enlarged(settings: Settings, shapes: Sequence[Shape], own: Shape) -> Shape | None:
    x, factor = shapes[0], settings["factor"]
    return (x[0], *(n * factor for n in x[1:])) if len(x) > 1 and factor > 0 else None


def _enlarge(settings: Settings, values: Sequence[F32], tensors: Tensors, own: Shape) -> F32:
    (x,) = values
    for axis in range(2, x.ndim):
        x = x.repeat(settings["factor"], axis=axis)
    return x


#: All operations but ``input``, ``table`` and ``quantize``, which need to know the step.
HOST: dict[str, HostOp] = {
    "sum": _binary(np.add),
    "difference": _binary(np.subtract),
    "product": _binary(np.multiply),
    "quotient": _binary(np.divide),
    "silu": HostOp(1, _same, _silu),
    "gelu": HostOp(1, _same, _gelu, {"tanh": bool}),
    "group_norm": HostOp(
        1, _grouped, _group_norm, {"groups": int, "affine": bool, "module": str},
        lambda s, x: _norms(s, x[0][:1]),
    ),
    "layer_norm": HostOp(
        1, _layered, _layer_norm, {"axes": int, "affine": bool, "module": str},
        lambda s, x: _norms(s, x[0][len(x[0]) - s["axes"] :]),
    ),
    "attention": HostOp(3, _attended, _attention),
    "concat": HostOp(
        None, _joined, lambda s, x, t, own: np.concatenate(x, axis=s["axis"] + 1), {"axis": int}
    ),
    "reshape": HostOp(1, _reshaped, lambda s, x, t, own: x[0].reshape(len(x[0]), *own)),
    "permute": HostOp(
        1, _permuted, lambda s, x, t, own: x[0].transpose(0, *(a + 1 for a in s["axes"])),
        {"axes": list},
    ),
    "slice": HostOp(1, _sliced, _slice, {"axis": int, "start": int, "stop": int}),
    "upsample": HostOp(1, _enlarged, _enlarge, {"factor": int}),
}  # fmt: skip
