"""An integer graph as ONNX: int8 weights, and activations between QuantizeLinear and back."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vq.container import atomic_file, open_container
from vq.errors import ConfigError
from vq.export.runtime import BATCHES, OPSET, check_opset, check_size, described, need, session
from vq.integer import IntegerModel, Node, read_integer
from vq.integer.golden import Parameters
from vq.integer.groups import inputs_of_groups
from vq.progress import bar

__all__ = ["export_integer"]

_IR_VERSION = 10  # what opset 23 and all before it can be read with

F64 = NDArray[np.float64]


def export_integer(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    opset: int = OPSET,
    rom: Mapping[str, NDArray[np.int8]] | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Write the integer graph of a container as ONNX, int8 throughout, with a free batch axis.

    Every node is ``DequantizeLinear``, the operation in fp32, ``QuantizeLinear``. Scales of
    weights are ``multiplier / 2**shift`` in units of the activations, so that every output is
    that of the integer arithmetic but where rounding is within fp32's precision of a tie: every
    node gives, for the same inputs, the same numbers to one step. This is checked in onnxruntime,
    node by node, before the file appears.

    Parameters
    ----------
    path : path
        A container with an integer graph.
    out : path
    opset : int
        Version of ONNX's operators, 18 to 23.
    rom : mapping of ``rom:<sha256>`` to [k, d] int8, optional
        Fixed codebooks that the container only names.
    progress : bool
        Show that work goes on when standard error is a terminal.

    Returns
    -------
    dict
        As :func:`vq.export.export_onnx`; ``checked`` also has ``max_steps``, the greatest
        difference of the whole graph's output to the integer arithmetic on random inputs.

    Raises
    ------
    ConfigError
        If a package is not installed, ``opset`` is none of these, the graph is too large for one
        file, or onnxruntime computes something else.
    ContainerError
        If the file is damaged or holds no integer graph.
    OutputError
        If ``out`` cannot be written; what existed before is intact.
    """
    need("onnx", "onnxruntime")
    check_opset(opset)
    with open_container(path, rom=rom) as container:
        model = read_integer(container)
    what = f"integer graph of {path}"
    check_size(what, sum(p.weight.size for p in model.parameters.values()))
    proto = _Writer(model).proto(opset)
    data = proto.SerializeToString()
    with bar("exporting to ONNX", None, enabled=progress):
        checked = _check(what, model, data, opset)
    document = {
        "opset": opset,
        "inputs": described(proto.graph.input),
        "outputs": described(proto.graph.output),
        "int8_layers": list(dict.fromkeys(n.layer for n in model.graph.nodes if n.layer)),
        "checked": checked,
        "notes": [],
    }
    with atomic_file(out) as target:
        target.write(data)
    return document


def _check(what: str, model: IntegerModel, data: bytes, opset: int) -> dict[str, Any]:
    """Compare onnxruntime with the integer arithmetic on random inputs, as ONNX defines it."""
    rng = np.random.default_rng(0)
    column = (-1, *[1] * (len(model.graph.input.shape) - 1))
    gain = np.where(model.gain == 0, 1, model.gain).reshape(column)

    def random(batch: int) -> NDArray[np.float32]:
        codes = np.clip(rng.normal(0, 40, (batch, *model.graph.input.shape)), -127, 127)
        x: NDArray[np.float32] = ((codes - model.offset.reshape(column)) / gain).astype(np.float32)
        return x

    x = random(2)
    traced = model.trace(model.quantize(x))
    apart = session(what, _Writer(model, apart=True).proto(opset).SerializeToString(), fused=False)
    found = apart({"input": x} | {f"{name}.given": value for name, value in traced.items()})
    for (name, want), have in zip(traced.items(), found, strict=True):
        steps = int(np.abs(have.astype(int) - want).max())
        if steps > 1:
            raise ConfigError(
                f"{what}: node {name!r} must give in onnxruntime what the integer arithmetic gives "
                f"to one step, not differ by {steps}"
            )
    whole, worst = session(what, data, fused=False), 0
    for batch in BATCHES:
        x = random(batch)
        have = np.rint(whole({"input": x})[0] / model.scales[-1]).astype(int)
        worst = max(worst, int(np.abs(have - model.run(model.quantize(x))).max()))
    difference = worst * float(model.scales[-1])
    return {"batches": list(BATCHES), "max_difference": difference, "max_steps": worst}


class _Writer:
    """Builds the nodes and initializers of a graph.

    With ``apart`` the nodes do not feed each other: inputs of nodes are inputs ``NAME.given`` of
    the graph, and their outputs are its outputs, in order.
    """

    def __init__(self, model: IntegerModel, *, apart: bool = False) -> None:
        from onnx import helper, numpy_helper

        self.model, self.helper, self.to_tensor = model, helper, numpy_helper.from_array
        self.scales = dict(zip((n.name for n in model.graph.nodes), model.scales, strict=True))
        self.apart = apart
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []

    def proto(self, opset: int) -> Any:
        """The whole model."""
        nodes, last = self.model.graph.nodes, self.model.graph.output
        for node in nodes:
            self._node(node)
        inputs, outputs = [self._value("input", np.float32, nodes[0])], []
        if self.apart:
            used = {name for node in nodes for name in node.inputs}
            inputs += [self._value(f"{n.name}.given", np.int8, n) for n in nodes if n.name in used]
            outputs = [self._value(f"{node.name}.int8", np.int8, node) for node in nodes]
        else:
            self._dequantize(f"{last.name}.int8", "output", float(self.scales[last.name]))
            outputs = [self._value("output", np.float32, last)]
        return self.helper.make_model(
            self.helper.make_graph(
                self.nodes, "integer", inputs, outputs, initializer=self.tensors
            ),
            opset_imports=[self.helper.make_opsetid("", opset)],
            ir_version=_IR_VERSION,
            producer_name="signbook",
        )

    def _value(self, name: str, dtype: type[np.generic], node: Node) -> Any:
        kind = self.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.helper.make_tensor_value_info(name, kind, ["batch", *node.shape])

    def _given(self, node: Node, place: int = 0) -> str:
        """An input of a node, int8."""
        return node.inputs[place] + (".given" if self.apart else ".int8")

    def _node(self, node: Node) -> None:
        """Append what computes ``NAME.int8``."""
        make = {
            "input": self._input, "linear": self._weighted, "conv": self._weighted,
            "add": self._add, "global_avgpool": self._average, "maxpool": self._maxpool,
            "shortcut": self._shortcut, "relu": self._relu, "flatten": self._flatten,
        }  # fmt: skip
        make[node.op](node)

    def _input(self, node: Node) -> None:
        """``clamp(rint(x * gain + offset))``, whole numbers of one step."""
        column = (-1, *[1] * (len(node.shape) - 1))
        gain = self._constant(f"{node.name}.gain", self.model.gain.reshape(column))
        offset = self._constant(f"{node.name}.offset", self.model.offset.reshape(column))
        scaled = self._op("Mul", ["input", gain], f"{node.name}.scaled")
        real = self._op("Add", [scaled, offset], f"{node.name}.real")
        self._quantize(node, real, 1.0)

    def _weighted(self, node: Node) -> None:
        p = self.model.parameters[node.name]
        x, (weight, bias) = self._real(node), self._products(node, p)
        total = f"{node.name}.sum"
        if node.op == "conv":
            before, after = zip(*node.padding, strict=True)
            y = self._op(
                "Conv", [x, weight, bias], total, group=node.groups,
                kernel_shape=list(p.weight.shape[2:]), strides=list(node.stride),
                dilations=list(node.dilation), pads=[*before, *after],
            )  # fmt: skip
        elif len(node.shape) == 1:
            y = self._op("Gemm", [x, weight, bias], total, transB=1)
        else:
            turned = self._op("Transpose", [weight], f"{node.name}.turned", perm=[1, 0])
            product = self._op("MatMul", [x, turned], f"{node.name}.product")
            y = self._op("Add", [product, bias], total)
        self._requantize(node, y)

    def _products(self, node: Node, p: Parameters) -> tuple[str, str]:
        """Weight and bias, such that sums come in units of the output's scale."""
        given, own = self.scales[node.inputs[0]], self.scales[node.name]
        unit = p.multiplier / 2.0**p.shift * own  # of one step of an accumulator
        column = (-1, *[1] * (p.weight.ndim - 1))
        if p.group:
            bias = self._constant(f"{node.name}.bias", (p.bias * unit).astype(np.float32))
            return self._grouped(node, p, unit / given), bias
        # Scales are positive, as engines want them, unless a weight has no negative in int8.
        sign = np.sign(p.multiplier).astype(np.int64)
        stays = (p.weight.reshape(len(p.weight), -1) == -128).any(axis=1) & (sign < 0)
        sign = np.where(stays, 1, sign)
        size = np.where(sign == 0, given, unit * sign)
        scale = (size / given).astype(np.float32)
        weight = (p.weight * sign.reshape(column)).astype(np.int8)
        names = []
        for field, whole, scales in (
            ("weight", weight, scale),
            ("bias", (p.bias * sign).astype(np.int32), (scale * given).astype(np.float32)),
        ):
            name = f"{node.name}.{field}"
            codes = self._constant(f"{name}.int", whole)
            scales_name = self._constant(f"{name}.scale", scales)
            names.append(self._op("DequantizeLinear", [codes, scales_name], name, axis=0))
        return names[0], names[1]

    def _grouped(self, node: Node, p: Parameters, unit: F64) -> str:
        """A weight with scales for groups of inputs, which ``DequantizeLinear`` cannot spread."""
        name, one = f"{node.name}.weight", np.array(1, np.float32)
        scale = p.group_scale * 2.0 ** -int(p.group_shift[0]) * unit[:, None]
        group = np.empty(p.weight[0].size, np.int64)
        for at, places in enumerate(inputs_of_groups(p.weight.shape, p.group)):
            group[places] = at
        whole = self._op(
            "DequantizeLinear",
            [self._constant(f"{name}.int", p.weight), self._constant(f"{name}.one", one)],
            f"{name}.whole",
        )
        scales = self._constant(f"{name}.scale", scale.astype(np.float32))
        groups = self._constant(f"{name}.group", group.reshape(p.weight.shape[1:]))
        spread = self._op("Gather", [scales, groups], f"{name}.spread", axis=1)
        return self._op("Mul", [whole, spread], name)

    def _add(self, node: Node) -> None:
        p = self.model.parameters[node.name]
        units = p.multiplier / 2.0 ** p.shift[0] * self.scales[node.name]
        parts = [self._real(node, place, float(unit)) for place, unit in enumerate(units)]
        self._requantize(node, self._op("Add", parts, f"{node.name}.sum"))

    def _average(self, node: Node) -> None:
        p = self.model.parameters[node.name]
        given = next(n.shape for n in self.model.graph.nodes if n.name == node.inputs[0])
        unit = float(p.multiplier[0]) / 2.0 ** int(p.shift[0]) * self.scales[node.name]
        x = self._real(node, 0, float(unit) * float(np.prod(given[1:])))
        y = self._op("GlobalAveragePool", [x], f"{node.name}.mean")
        if len(node.shape) == 1:
            y = self._op("Flatten", [y], f"{node.name}.flat", axis=1)
        self._requantize(node, y)

    def _maxpool(self, node: Node) -> None:
        before, after = zip(*node.padding, strict=True)
        self._op(
            "MaxPool", [self._given(node)], f"{node.name}.int8",
            kernel_shape=list(node.kernel), strides=list(node.stride), pads=[*before, *after],
        )  # fmt: skip

    def _shortcut(self, node: Node) -> None:
        rank = len(node.stride)
        places = [
            self._constant(f"{node.name}.{what}", np.array(values, np.int64))
            for what, values in (
                ("starts", [0] * rank), ("ends", [np.iinfo(np.int64).max] * rank),
                ("axes", range(2, 2 + rank)), ("steps", node.stride),
            )
        ]  # fmt: skip
        cut = self._op("Slice", [self._given(node), *places], f"{node.name}.cut")
        before, after = node.channels
        pads = np.array([0, before, *[0] * (rank + 1), after, *[0] * rank], np.int64)
        widths = self._constant(f"{node.name}.pads", pads)
        zero = self._constant(f"{node.name}.zero", np.array(0, np.int8))
        self._op("Pad", [cut, widths, zero], f"{node.name}.int8")

    def _relu(self, node: Node) -> None:
        y = self._op("Relu", [self._real(node)], f"{node.name}.positive")
        self._quantize(node, y, float(self.scales[node.name]))

    def _flatten(self, node: Node) -> None:
        self._op("Flatten", [self._given(node)], f"{node.name}.int8", axis=1)

    def _real(self, node: Node, place: int = 0, unit: float | None = None) -> str:
        """An input of a node in fp32; ``unit`` is what a step is worth, if not its scale."""
        size = float(self.scales[node.inputs[place]]) if unit is None else unit
        return self._dequantize(self._given(node, place), f"{node.name}.input{place}", size)

    def _dequantize(self, codes: str, name: str, scale: float) -> str:
        return self._op("DequantizeLinear", [codes, *self._grid(name, scale)], name)

    def _requantize(self, node: Node, real: str) -> None:
        if node.relu:
            real = self._op("Relu", [real], f"{node.name}.positive")
        self._quantize(node, real, float(self.scales[node.name]))

    def _quantize(self, node: Node, real: str, scale: float) -> None:
        name = f"{node.name}.int8"
        self._op("QuantizeLinear", [real, *self._grid(name, scale)], name)

    def _grid(self, name: str, scale: float) -> list[str]:
        """Scale and zero point."""
        return [
            self._constant(f"{name}.scale", np.array(scale, np.float32)),
            self._constant(f"{name}.zero", np.array(0, np.int8)),
        ]

    def _constant(self, name: str, values: NDArray[Any]) -> str:
        self.tensors.append(self.to_tensor(np.ascontiguousarray(values), name))
        return name

    def _op(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(self.helper.make_node(kind, inputs, [output], output, **attributes))
        return output
