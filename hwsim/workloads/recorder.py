"""From operations as torch dispatches them to layers of a workload."""

import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hwsim.workloads.layer import WEIGHTED_OPS
from hwsim.workloads.ledger import LayerDraft, Ledger, is_tensor, storage_of, tensors_in

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Recorder"]

_RELUS = {"relu", "relu_", "hardtanh", "hardtanh_", "clamp_min", "clamp_min_"}
_ACTIVATIONS = {
    "gelu", "silu", "sigmoid", "tanh", "hardswish", "hardsigmoid", "leaky_relu", "elu", "mish",
    "softplus", "log_sigmoid_forward", "glu",
}  # fmt: skip
_BINARY = {"add": "add", "sub": "add", "mul": "mul", "div": "mul"}
#: Operations whose output has nothing of their operands but the shape.
_FRESH = re.compile(r"_like$|^new_|^full|^empty|^zeros|^ones|^arange")
#: Modules that are one layer, whatever they do inside, by the name of their class.
_NORM = re.compile(r"^(?!.*BatchNorm).*Norm")
_ACTIVATION = re.compile(r"GELU|SiLU|Swish|Mish|Activation", re.I)
_BATCH_NORMS = {
    "native_batch_norm", "_native_batch_norm_legit_no_training", "_native_batch_norm_legit",
    "cudnn_batch_norm", "batch_norm",
}  # fmt: skip
_NORMS = {"native_layer_norm", "native_group_norm", "rms_norm", "_fused_rms_norm"}
#: Products: they are listed even inside a module that is one layer otherwise.
_PRODUCTS = {"convolution", "addmm", "mm", "addmv", "mv", "linear", "bmm", "baddbmm"}
_UNSEEN = {"mkldnn_rnn_layer", "_cudnn_rnn", "_native_multi_head_attention"}


class Recorder(Ledger):
    """Collects layers while a model runs; every method handles one kind of operation."""

    def enter(self, path: str, module: "nn.Module", args: Any, kwargs: Any) -> None:
        """A module begins; a norm or an activation by its class name is one layer."""
        draft = None
        kind = type(module).__name__
        inputs = [t for t in (*args, *kwargs.values()) if is_tensor(t)]
        op = "norm" if _NORM.match(kind) else "activation" if _ACTIVATION.search(kind) else ""
        leaf = next(module.children(), None) is None
        if op and leaf and inputs and not self._inside():
            draft = self._elementwise(op, inputs[:1], path or kind)
        self._stack.append((path, module, draft))

    def leave(self, out: Any) -> None:
        """The last module that began has ended."""
        *_, draft = self._stack.pop()
        if draft is not None and is_tensor(out):
            self._give(out, draft)

    def _inside(self) -> bool:
        return any(draft is not None for *_, draft in self._stack)

    def call(self, name: str, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> None:
        """One operation, by its name in torch's own library."""
        given = tensors_in([*args, *kwargs.values()])
        hidden = self._inside() and name not in _PRODUCTS
        draft = None if hidden else self._layer_of(name, args, kwargs, out)
        if draft is not None:
            for value in tensors_in([out]):
                self._give(value, draft)
        elif not _FRESH.search(name):
            known = [t for t in given if storage_of(t) in self._made]
            if known:  # what is no layer passes on where its largest operand is from
                made = self._made[storage_of(max(known, key=lambda t: int(t.numel())))]
                for value in tensors_in([out]):
                    if value.is_floating_point() and storage_of(value) not in self._made:
                        self._give(value, made)
        self._count_kept(given, out, draft)

    def _layer_of(
        self, name: str, args: Sequence[Any], kwargs: dict[str, Any], out: Any
    ) -> LayerDraft | None:
        """The layer that an operation is, or is folded into; None if it is none."""
        plain = name.rstrip("_") if name.endswith("_") and not name.startswith("_") else name
        if name in _UNSEEN:
            self._problems.append(
                f"layer {self._path()!r}: must show its products, not hide them in {name}"
            )
            return None
        if name.startswith("_scaled_dot_product_"):
            return self._attention(*args[:3])
        handler = _HANDLERS.get(plain)
        if handler is not None:
            return handler(self, args, kwargs, out)
        if plain in _BINARY:
            return self._binary(_BINARY[plain], args)
        if name in _RELUS:
            made = self._made.get(storage_of(args[0]))
            if made is not None and made.op in (*WEIGHTED_OPS, "add", "avgpool"):
                return made
        if name in _RELUS or plain in _ACTIVATIONS:
            return self._elementwise("activation", [args[0]]) if self._known(args[0]) else None
        if name in _BATCH_NORMS:
            made = self._made.get(storage_of(args[0]))
            if made is not None and made.op in WEIGHTED_OPS:
                return made
            return self._elementwise("norm", [args[0]])
        return self._elementwise("norm", [args[0]]) if plain in _NORMS else None

    def _convolution(self, args: Sequence[Any], kwargs: Any, out: Any) -> LayerDraft | None:
        x, weight, _, stride, padding, dilation, transposed, _, groups = args[:9]
        rank = x.ndim - 2
        where = self._owner(weight)
        if transposed or rank > 2:
            what = "a transposed convolution" if transposed else f"one of {rank} axes"
            self._problems.append(f"layer {where!r}: must not be {what}")
            return None
        if x.shape[0] != 1:
            self._problems.append(f"layer {where!r}: sample must hold one image, not {x.shape[0]}")
        fields = self._window(x, weight.shape[2:], stride, padding, dilation)
        fields |= {"inputs": x.shape[1], "outputs": weight.shape[0], "groups": groups}
        return self._weighted(f"conv{rank}d", where, weight, fields, x, image=True)

    def _addmm(self, args: Sequence[Any], kwargs: Any, out: Any) -> LayerDraft | None:
        return self._mm(args[1:], kwargs, out)

    def _mm(self, args: Sequence[Any], kwargs: Any, out: Any) -> LayerDraft | None:
        a, b = args[:2]
        b = b if b.ndim == 2 else b[:, None]
        (m, k), n = a.shape, b.shape[1]
        if self._is_weight(b, n, k):
            return self._linear(b, k, n, m, a)
        if self._is_weight(a, m, k):  # weights on the left: outputs are rows there
            return self._linear(a, k, m, n, b)
        return self._product(1, m, k, n, (a, b)) if self._known(a, b) else None

    def _functional_linear(self, args: Sequence[Any], kwargs: Any, out: Any) -> LayerDraft | None:
        x, weight = args[:2]
        outputs, inputs = weight.shape
        return self._linear(weight, inputs, outputs, x.numel() // inputs, x)

    def _baddbmm(self, args: Sequence[Any], kwargs: Any, out: Any) -> LayerDraft | None:
        return self._bmm(args[1:], kwargs, out)

    def _bmm(self, args: Sequence[Any], kwargs: Any, out: Any) -> LayerDraft | None:
        a, b = args[:2]
        (groups, m, k), n = a.shape, b.shape[2]
        if not self._is_weight(b, n, k):
            return self._product(groups, m, k, n, (a, b)) if self._known(a, b) else None
        if groups == 1 or b.stride(0) == 0:  # one matrix for all
            return self._linear(b, k, n, groups * m, a)
        draft = None
        for one in b:
            draft = self._linear(one, k, n, m, a)
        return draft

    def _embedding(self, args: Sequence[Any], kwargs: Any, out: Any) -> LayerDraft | None:
        weight, index = args[:2]
        words, length = weight.shape
        fields = {"inputs": words, "outputs": length, "rows": index.numel()}
        return self._weighted("embedding", self._owner(weight), weight, fields, None)

    def _linear(self, weight: "Tensor", inputs: int, outputs: int, rows: int, x: Any) -> LayerDraft:
        fields = {"inputs": inputs, "outputs": outputs, "rows": rows}
        return self._weighted("linear", self._owner(weight), weight, fields, x)

    def _attention(self, q: "Tensor", k: "Tensor", v: "Tensor") -> LayerDraft:
        *batch, rows, width = q.shape
        groups, seen = math.prod(batch), k.shape[-2]
        scores = self._product(groups, rows, width, seen, (q, k), "scores")
        fields = {"inputs": seen, "outputs": seen, "rows": groups * rows}
        softmax = self._add(f"{self._path()}.softmax".lstrip("."), "softmax", fields, [])
        softmax.fields["sources"] = (scores.name,)
        values = self._product(groups, rows, seen, v.shape[-1], (v,), "values")
        values.fields["sources"] = (softmax.name, *values.fields["sources"])
        return values

    def _product(
        self,
        groups: int,
        m: int,
        k: int,
        n: int,
        operands: "Sequence[Tensor]",
        what: str = "matmul",
    ) -> LayerDraft:
        fields = {"inputs": k, "outputs": n, "rows": m, "groups": groups}
        return self._add(f"{self._path()}.{what}".lstrip("."), "matmul", fields, operands)

    def _softmax(self, args: Sequence[Any], kwargs: Any, out: Any) -> LayerDraft | None:
        return self._elementwise("softmax", [args[0]]) if self._known(args[0]) else None

    def _binary(self, op: str, args: Sequence[Any]) -> LayerDraft | None:
        """Of two tensors, one of which a layer gave; factors and single numbers are nothing."""
        operands = [a for a in args[:2] if is_tensor(a)]
        large = [t for t in operands if t.numel() > 1 and t.is_floating_point()]
        if len(large) < 2 or not self._known(*large):
            return None
        return self._elementwise(op, sorted(large, key=lambda t: -int(t.numel())))

    def _maxpool(self, args: Sequence[Any], kwargs: Any, out: Any) -> LayerDraft | None:
        return self._pooled("maxpool", args, out[0] if isinstance(out, tuple) else out)

    def _avgpool(self, args: Sequence[Any], kwargs: Any, out: Any) -> LayerDraft | None:
        return self._pooled("avgpool", args, out)

    def _pooled(self, op: str, args: Sequence[Any], out: "Tensor") -> LayerDraft | None:
        x, kernel, *rest = args
        stride = rest[0] if rest and rest[0] else kernel
        padding = rest[1] if len(rest) > 1 else (0, 0)
        fields = self._window(x, kernel, stride, padding, (1, 1))
        # Rounding up lets windows reach beyond the padding.
        pads = [
            (before, max(after, (o - 1) * s + k - n - before))
            for (before, after), o, s, k, n in zip(
                fields["padding"], out.shape[-2:], fields["stride"], fields["kernel"],
                x.shape[-2:], strict=True,
            )
        ]  # fmt: skip
        channels = x.shape[-3]
        fields |= {"padding": tuple(pads), "inputs": channels, "outputs": channels}
        return self._add(f"{self._path()}.{op}".lstrip("."), op, fields, [x], True)

    def _adaptive(self, args: Sequence[Any], kwargs: Any, out: Any) -> LayerDraft | None:
        x = args[0]
        strides = [n // o for n, o in zip(x.shape[-2:], out.shape[-2:], strict=True)]
        kernel = [
            n - (o - 1) * s for n, o, s in zip(x.shape[-2:], out.shape[-2:], strides, strict=True)
        ]
        return self._pooled("avgpool", (x, kernel, strides), out)

    def _mean(self, args: Sequence[Any], kwargs: Any, out: Any) -> LayerDraft | None:
        """Over the positions of an image, or over rows; any other mean is nothing."""
        x = args[0]
        made = self._made.get(storage_of(x))
        axes = args[1] if len(args) > 1 else kwargs.get("dim")
        if made is None or axes is None:
            return None
        axes = sorted(axis % x.ndim for axis in axes)
        if self._is_image(x) and axes == list(range(2, x.ndim)):
            height, width = (*x.shape[2:], 1)[:2]
            channels = x.shape[1]
        elif x.ndim == 3 and axes == [1]:
            channels, height, width = x.shape[2], x.shape[1], 1
        else:
            return None
        fields = {"inputs": channels, "outputs": channels, "height": height, "width": width}
        fields |= {"kernel": (height, width)}
        return self._add(f"{self._path()}.avgpool".lstrip("."), "avgpool", fields, [x], True)

    def _pad(self, args: Sequence[Any], kwargs: Any, out: Any) -> LayerDraft | None:
        """Channels of zeros beside every s-th position: a shortcut without weights."""
        x, pads = args[:2]
        made = self._made.get(storage_of(x))
        if made is None or not made.image or x.ndim != 4 or len(pads) != 6 or any(pads[:4]):
            return None
        source = made.layer()
        height, width = source.out_height, source.out_width
        fields = {
            "inputs": x.shape[1], "outputs": out.shape[1], "height": height, "width": width,
            "stride": (-(-height // x.shape[2]), -(-width // x.shape[3])),
        }  # fmt: skip
        return self._add(f"{self._path()}.shortcut".lstrip("."), "shortcut", fields, [x], True)

    def _window(
        self, x: "Tensor", kernel: Any, stride: Any, padding: Any, dilation: Any
    ) -> dict[str, Any]:
        """Fields of what moves a window; one axis is the vertical one."""
        height, width = (*x.shape[2:], 1)[:2] if x.ndim != 3 or len(kernel) == 1 else x.shape[1:]
        before = _pair(padding, 0)
        return {
            "height": height, "width": width, "kernel": _pair(kernel, 1),
            "stride": _pair(stride, 1), "dilation": _pair(dilation, 1),
            "padding": ((before[0],) * 2, (before[1],) * 2),
        }  # fmt: skip


_HANDLERS: dict[str, Callable[..., LayerDraft | None]] = {
    "convolution": Recorder._convolution,
    "addmm": Recorder._addmm,
    "mm": Recorder._mm,
    "addmv": Recorder._addmm,
    "mv": Recorder._mm,
    "linear": Recorder._functional_linear,
    "bmm": Recorder._bmm,
    "baddbmm": Recorder._baddbmm,
    "embedding": Recorder._embedding,
    "_softmax": Recorder._softmax,
    "_safe_softmax": Recorder._softmax,
    "max_pool2d_with_indices": Recorder._maxpool,
    "avg_pool2d": Recorder._avgpool,
    "_adaptive_avg_pool2d": Recorder._adaptive,
    "mean": Recorder._mean,
    "constant_pad_nd": Recorder._pad,
}


def _pair(value: Any, missing: int) -> tuple[int, int]:
    vertical, horizontal = (*value, missing, missing)[:2]
    return int(vertical), int(horizontal)
