"""A loaded model as ONNX: named inputs, free batch and sequence axes, int8 layers as they are."""

import itertools
import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vq.calibration.batches import as_it_was, call_model, device_of, on_batch, to_device
from vq.container import atomic_file, open_container
from vq.errors import ConfigError
from vq.export.door import Door, Int8, named_inputs, named_outputs, replaced
from vq.export.runtime import BATCHES, OPSET, check_opset, check_size, described, need, session
from vq.formats.remaining import require_plain
from vq.integer.store import weight_of_layer
from vq.progress import Advance, bar

__all__ = ["export_onnx"]

#: What onnxruntime's outputs may differ by, of the greatest one: both round every sum in fp32.
_TOLERANCE = 1e-3
_BATCH, _SEQUENCE = "batch", "sequence"

Axes = list[dict[int, str]]


def export_onnx(
    model: nn.Module,
    inputs: Any,
    out: str | os.PathLike[str],
    *,
    opset: int = OPSET,
    int8: str | os.PathLike[str] | None = None,
    rom: Mapping[str, NDArray[np.int8]] | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Write a loaded model as ONNX.

    The first axis of every input that shares the batch is free, and so is the second of token
    models, wherever the model does not compute with their sizes; else they are fixed, and the
    document says so. The file is run in onnxruntime, at three batches if they are free, before it
    appears.

    Parameters
    ----------
    model : nn.Module
        As :func:`vq.load` returns it.
    inputs : inputs of a batch
        A tensor, a tuple or list of positional arguments, or a mapping of keyword arguments.
        Tensors among them become the graph's inputs, named as the model's ``forward`` names them;
        all else is fixed.
    out : path
    opset : int
        Version of ONNX's operators, 18 to 23.
    int8 : path, optional
        The model's container. Weights that it holds as whole numbers and one scale, or one for
        each output, are int8 initializers before ``DequantizeLinear``, whose products are the
        dense weights bit for bit: layers of int8 and those with codebooks.
    rom : mapping of ``rom:<sha256>`` to [k, d] int8, optional
        Fixed codebooks that ``int8`` only names.
    progress : bool
        Show that work goes on when standard error is a terminal.

    Returns
    -------
    dict
        ``opset``; ``inputs`` and ``outputs``, each with name, dtype and shape, where a free axis
        is a name; ``int8_layers``, their names; ``checked``, the ``batches`` that onnxruntime ran
        and the greatest difference of an output, ``max_difference``; ``notes``.

    Raises
    ------
    ConfigError
        If a package is not installed, ``opset`` is none of these, parts of the model remain at run
        time, it cannot take the inputs, holds other floating-point tensors than float32, is too
        large for one file, or torch cannot export it, or onnxruntime computes something else.
    OutputError
        If ``out`` cannot be written; what existed before is intact.
    """
    need("onnx", "onnxscript", "onnxruntime")
    check_opset(opset)
    require_plain(model, "exporting to ONNX")
    stored = {} if int8 is None else _int8_weights(model, int8, rom)
    check_size(type(model).__name__, _bytes(model, stored))
    inputs = to_device(inputs, device_of(model))
    with as_it_was(model), torch.no_grad(), _quiet():
        model.eval()
        with on_batch(1, inputs, "export"):
            outputs = call_model(model, inputs)
        trace = _Trace(model, inputs, outputs, stored, opset)
        with bar("exporting to ONNX", None, enabled=progress) as advance:
            data, document = trace.widest(advance)
    with atomic_file(out) as target:
        target.write(data)
    return document


class _Trace:
    """Attempts to export a model, each with other axes free."""

    def __init__(
        self, model: nn.Module, inputs: Any, outputs: Any, int8: Mapping[str, Int8], opset: int
    ) -> None:
        self.model, self.inputs, self.opset, self.what = model, inputs, opset, type(model).__name__
        pairs = named_inputs(model, inputs)
        self.names, self.tensors = [n for n, _ in pairs], [t for _, t in pairs]
        self.outputs = [name for name, _ in named_outputs(outputs, set(self.names))]
        for kind, found in (("take", self.names), ("return", self.outputs)):
            if not found:
                raise ConfigError(f"{self.what} must {kind} tensors to be exported, not none")
        own = itertools.chain(model.named_parameters(), model.named_buffers())
        for name, tensor in itertools.chain(own, pairs):
            if tensor.is_floating_point() and tensor.dtype != torch.float32:
                raise ConfigError(
                    f"{self.what}: tensor {name!r} must be float32 to be exported, "
                    f"not {str(tensor.dtype).removeprefix('torch.')}"
                )
        self.axes = _axes(self.tensors)
        self.door = Door(model, inputs, int8)

    def widest(self, advance: Advance) -> tuple[bytes, dict[str, Any]]:
        """The file with as many free axes as the model allows, and its document."""
        wanted = {name for axes in self.axes for name in axes.values()}
        for free in filter(None, dict.fromkeys((frozenset(wanted), frozenset(wanted & {_BATCH})))):
            try:
                advance(note=f"free: {', '.join(sorted(free))}")
                return self._export(free, wanted)
            except Exception:  # torch has many ways to say that a size must be fixed
                continue
        advance(note="all sizes fixed")
        return self._export(frozenset(), wanted)

    def _export(self, free: frozenset[str], wanted: set[str]) -> tuple[bytes, dict[str, Any]]:
        axes: Axes = [{at: n for at, n in own.items() if n in free} for own in self.axes]
        program = self._program(axes)
        for value in list(program.model.graph.initializers.values()):
            value.name = self.door.initializer(value.name)
        proto = program.model_proto
        _name_axes(proto.graph, axes)
        found = next(each.version for each in proto.opset_import if each.domain == "")
        if found != self.opset:
            raise ConfigError(
                f"{self.what} must be exportable to opset {self.opset}, but torch gives {found}"
            )
        data: bytes = proto.SerializeToString()
        document: dict[str, Any] = {
            "opset": self.opset,
            "inputs": described(proto.graph.input),
            "outputs": described(proto.graph.output),
            "int8_layers": [n.removesuffix(".weight") for n in self.door.int8.values()],
            "checked": self._check(data, free),
            "notes": [
                f"axis {name!r} is fixed: with it free, the export fails or computes something else"
                for name in sorted(wanted - free)
            ],
        }
        return data, document

    def _program(self, axes: Axes) -> Any:
        # One of a size is what torch takes for fixed; two are quick.
        example = tuple(_resized(self.tensors, axes, {_BATCH: 2}))
        dynamic = tuple(dict.fromkeys(own, torch.export.Dim.DYNAMIC) for own in axes)
        try:
            exported = torch.export.export(
                self.door, example, dynamic_shapes={"tensors": dynamic}, strict=False
            )
            return torch.onnx.export(
                exported,
                dynamo=True,
                opset_version=self.opset,
                input_names=self.names,
                output_names=self.outputs,
                verbose=False,
            )
        except Exception as error:  # whatever the exporter cannot do
            reason = str(error).strip().partition("\n")[0]
            raise ConfigError(
                f"{self.what} must be exportable to ONNX, but torch raises "
                f"{type(error).__name__}: {reason}"
            ) from error

    def _check(self, data: bytes, free: frozenset[str]) -> dict[str, Any]:
        """Compare onnxruntime with torch, at every batch if that is free."""
        run = session(self.what, data)
        given = {
            n: t.shape[at]
            for t, own in zip(self.tensors, self.axes, strict=True)
            for at, n in own.items()
        }
        worst, tried = 0.0, []
        for place, batch in enumerate(BATCHES if _BATCH in free else [given.get(_BATCH, 1)]):
            sizes = given | {_BATCH: batch}
            if place == 1 and _SEQUENCE in free:
                sizes[_SEQUENCE] = -(-given[_SEQUENCE] // 2)
            tensors = _resized(self.tensors, self.axes, sizes)
            found = run(dict(zip(self.names, map(_numpy, tensors), strict=True)))
            outputs = call_model(self.model, replaced(self.inputs, iter(tensors)))
            wanted = named_outputs(outputs, set(self.names))
            for (name, want), have in zip(wanted, found, strict=True):
                worst = max(worst, self._difference(name, _numpy(want), have))
            tried.append(batch)
        return {"batches": tried, "max_difference": worst}

    def _difference(self, name: str, want: NDArray[Any], have: NDArray[Any]) -> float:
        want, have = want.astype(np.float64), have.astype(np.float64)
        most, worst = float(np.abs(want[np.isfinite(want)]).max(initial=0)), float("inf")
        if want.shape == have.shape:
            other = want != have  # equal infinities are no difference
            worst = float(np.abs(want[other] - have[other]).max(initial=0))
        if not worst <= _TOLERANCE * most:
            raise ConfigError(
                f"{self.what}: output {name!r} must be in onnxruntime what it is in torch to "
                f"{_TOLERANCE:g} of its greatest value, {most:.6g}, not differ by {worst:.3g}"
            )
        return worst


def _int8_weights(
    model: nn.Module,
    path: str | os.PathLike[str],
    rom: Mapping[str, NDArray[np.int8]] | None,
) -> dict[str, Int8]:
    """Weights that are int8 times one scale or one for each output, shaped as the model's."""
    if not hasattr(torch.onnx, "ops"):
        raise ConfigError(
            f"exporting int8 layers: torch must be 2.8 or later, not {torch.__version__}"
        )
    found: dict[str, Int8] = {}
    shapes = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
    with open_container(path, rom=rom) as container:
        for entry in container.layers:
            g = entry.geometry
            if g.group:
                continue
            codes = torch.from_numpy(weight_of_layer(container, g.name))
            turned = g.op == "linear_t"
            codes = codes.T.contiguous() if turned else codes
            name = f"{g.name}.weight"
            if shapes.get(name) != tuple(codes.shape):
                raise ConfigError(
                    f"{path}: layer {g.name!r} must be the model's, of shape {list(codes.shape)}"
                )
            scale = torch.from_numpy(np.array(container.scale(g.name)))
            device = device_of(model)
            shaped = scale.reshape(()) if len(scale) == 1 else scale
            found[name] = codes.to(device), shaped.to(device), 1 if turned else 0
    if not found:
        raise ConfigError(
            f"{path}: must hold a layer without groups of scales to be exported quantized, not none"
        )
    return found


def _bytes(model: nn.Module, int8: Mapping[str, Int8]) -> int:
    """Bytes of a model's tensors in the file."""
    stored = sum(codes.nbytes + scale.nbytes for codes, scale, _ in int8.values())
    tensors = itertools.chain(model.named_parameters(), model.named_buffers())
    return stored + sum(tensor.nbytes for name, tensor in tensors if name not in int8)


def _axes(tensors: list[Tensor]) -> Axes:
    """Axes of every input that the batch and the tokens of a text have in common."""
    batch = next((len(t) for t in tensors if t.ndim), 0)
    texts = (t for t in tensors if t.ndim == 2 and t.dtype in (torch.int32, torch.int64))
    length = next((t.shape[1] for t in texts if t.shape[1] > 1), 0)
    axes: Axes = []
    for tensor in tensors:
        own = {0: _BATCH} if tensor.ndim and len(tensor) == batch else {}
        if own and tensor.ndim > 1 and tensor.shape[1] == length:
            own[1] = _SEQUENCE
        axes.append(own)
    return axes


def _resized(tensors: list[Tensor], axes: Axes, sizes: Mapping[str, int]) -> list[Tensor]:
    """Tensors with other sizes along named axes: what they hold is repeated or cut."""
    found = []
    for tensor, own in zip(tensors, axes, strict=True):
        for axis, name in own.items():
            if name in sizes:
                places = torch.arange(sizes[name], device=tensor.device) % tensor.shape[axis]
                tensor = tensor.index_select(axis, places)
        found.append(tensor)
    return found


def _name_axes(graph: Any, axes: Axes) -> None:
    """Call free axes by their names, in place of torch's s0, s1."""
    names = {}
    for value, own in zip(graph.input, axes, strict=True):
        for axis, name in own.items():
            names[value.type.tensor_type.shape.dim[axis].dim_param] = name
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(
                    r"\w+", lambda found: names.get(found[0], found[0]), dim.dim_param
                )


def _numpy(tensor: Tensor) -> NDArray[Any]:
    found: NDArray[Any] = tensor.detach().cpu().numpy()
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch's exporter says about its own inner workings."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
