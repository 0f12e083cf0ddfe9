"""Write a container in other forms: dense safetensors, ONNX, a memory image with its map."""

import hashlib
import importlib
import json
import os
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vq.container import Container, ContainerError, Span, atomic_file, open_container
from vq.container.constants import DTYPE_BYTES
from vq.errors import ConfigError
from vq.integer.store import is_integer_tensor

__all__ = ["DTYPES", "export_dense", "export_dram", "export_onnx"]

#: Names of dtypes on the command line, and in a safetensors file.
DTYPES = {"fp32": "F32", "bf16": "BF16", "fp16": "F16"}
_COPY_BYTES = 2**24


def export_dense(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    dtype: str = "fp32",
    rom: Mapping[str, NDArray[np.int8]] | None = None,
) -> list[str]:
    """Decode a container into an ordinary safetensors file, layer by layer.

    Weights are named and shaped as in the model's state dictionary (``fc.weight``; a ``linear_t``
    is transposed back). Memory is that of one decoded layer.

    Parameters
    ----------
    path, out : path
    dtype : str
        Of the decoded weights: "fp32" (exact), "bf16" or "fp16" (rounded to nearest even). Kept
        tensors stay what they are. Of tensors that the model ties, the file holds the first.
    rom : mapping of ``rom:<sha256>`` to [k, d] int8, optional
        Fixed codebooks that the container only names.

    Returns
    -------
    list of str
        Names of the tensors that were written.

    Raises
    ------
    ConfigError
        If ``dtype`` is none of these.
    ContainerError
        If the file is damaged, or a weight is too large for ``dtype``.
    OutputError
        If ``out`` cannot be written; what existed before is intact.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
    tag = DTYPES[dtype]
    with open_container(path, rom=rom) as container, atomic_file(out) as file:
        rows = _dense_tensors(container, tag)
        table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        at = 0
        for name, (kind, shape) in rows.items():
            end = at + DTYPE_BYTES[kind] * int(np.prod(shape, dtype=np.int64))
            table[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, end]}
            at = end
        header = json.dumps(table, separators=(",", ":")).encode()
        header = header.ljust(-(-len(header) // 8) * 8)
        file.write(len(header).to_bytes(8, "little") + header)
        for entry in container.layers:
            layer = entry.geometry.name
            file.write(_narrow(container.weight(layer), tag, f"{container.path}: layer {layer!r}"))
        for name in container.kept_names:
            if name in rows:
                file.write(container.kept(name).data)
    return list(rows)


def _dense_tensors(container: Container, tag: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Dtype and shape of every tensor of the dense file, in its order."""
    rows: dict[str, tuple[str, tuple[int, ...]]] = {}
    for entry in container.layers:
        g = entry.geometry
        rows[f"{g.name}.weight"] = tag, g.shape[::-1] if g.op == "linear_t" else g.shape
    for name in container.kept_names:
        if name in rows:
            raise ContainerError(
                f"{container.path}: tensor {name!r} must be kept or coded, not both"
            )
        if not is_integer_tensor(name):
            kept = container.kept(name)
            rows[name] = kept.dtype, kept.shape
    return rows


def _narrow(weight: NDArray[np.float32], tag: str, where: str) -> bytes:
    """Bytes of a weight in another dtype, rounded to nearest even."""
    if tag == "F32":
        return weight.astype("<f4", copy=False).tobytes()
    if tag == "F16":
        with np.errstate(over="ignore"):
            narrow = weight.astype("<f2")
        if not np.isfinite(narrow).all():
            raise ContainerError(f"{where}: weight must fit fp16, not {np.abs(weight).max()}")
        return narrow.tobytes()
    return torch.from_numpy(weight).bfloat16().view(torch.int16).numpy().astype("<i2").tobytes()


def export_dram(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    base: int = 0,
) -> dict[str, Any]:
    """Write what an accelerator's memory holds, and say where everything lies.

    The image is the container itself, byte for byte, so that offsets in both are the same; its
    copy is checked first, as far as that goes without the codebooks of a ROM.

    Parameters
    ----------
    path : path
    out : path
        The image. The map is for the caller to write.
    base : int
        Address of the image's first byte, a multiple of 4096.

    Returns
    -------
    dict
        The ``signbook.dram/1`` document: ``base``, ``bytes``, ``sha256`` of the image, every
        layer with the address and bytes of its stream, codebook and scales (None if it has none)
        and what a decoder has to know of it, and the address of every other tensor.

    Raises
    ------
    ConfigError
        If ``base`` is not on a page.
    ContainerError, OutputError
        As :func:`export_dense`.
    """
    if base < 0 or base % 4096:
        raise ConfigError(f"base must be a multiple of 4096, not {base}")
    with open_container(path) as container:
        container.verify(complete=False)
        image = container.image()
        digest = hashlib.sha256(image.data).hexdigest()
        with atomic_file(out) as file:
            for start in range(0, len(image), _COPY_BYTES):
                file.write(image[start : start + _COPY_BYTES].data)
        spans = container.tensor_spans()
        layers, first = [], 0
        for entry in container.layers:
            g = entry.geometry
            scale = None
            if g.scales:
                at = spans["_scales"].offset + 4 * first
                scale, first = _place(Span(at, 4 * g.scales), base), first + g.scales
            layers.append(
                {
                    "name": g.name, "op": g.op, "shape": list(g.shape), "method": g.method,
                    "axis": g.axis, "tile_outputs": g.tile_outputs, "d": g.d, "k": g.k, "b": g.b,
                    "sign_bits": g.sign_bits, "group": g.group, "weights": g.weights,
                    "sub_vectors": g.N, "stream": _place(entry.stream, base),
                    "codebook": None if entry.codebook is None else _place(entry.codebook, base),
                    "rom": g.codebook if g.in_rom else None, "scales": scale,
                }
            )  # fmt: skip
        shown = {"_scales"} | {f"{e.geometry.name}.stream" for e in container.layers}
        shown |= {e.geometry.codebook for e in container.layers}
        others = {n: _place(span, base) for n, span in spans.items() if n not in shown}
    return {
        "schema": "signbook.dram/1",
        "base": base,
        "bytes": len(image),
        "sha256": digest,
        "layers": layers,
        "tensors": {n: place for n, place in others.items() if not n.startswith("_pad.")},
    }


def _place(span: Span, base: int) -> dict[str, int]:
    return {"address": base + span.offset, "bytes": span.nbytes}


def export_onnx(model: nn.Module, example: Any, out: str | os.PathLike[str]) -> None:
    """Write a loaded model as ONNX with dense weights.

    Parameters
    ----------
    model : nn.Module
        As :func:`vq.load` returns it.
    example : tensor or tuple of tensors
        Inputs; the file accepts this shape and this batch only.
    out : path

    Raises
    ------
    ConfigError
        If onnx and onnxscript are not installed, or torch cannot export the model.
    OutputError
        If ``out`` cannot be written; what existed before is intact.
    """
    for package in ("onnx", "onnxscript"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ConfigError(
                f"exporting to ONNX: package {package!r} must be installed, not absent; "
                "run: pip install 'signbook[onnx]'"
            ) from error
    arguments = tuple(example) if isinstance(example, tuple | list) else (example,)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about its own inner workings
        file = Path(folder) / "model.onnx"
        try:
            torch.onnx.export(
                model.eval(), arguments, file, dynamo=True, external_data=False, verbose=False
            )
        except Exception as error:  # whatever the exporter cannot do
            reason = str(error).strip().partition("\n")[0]
            raise ConfigError(
                f"{type(model).__name__} must be exportable to ONNX, but {reason}"
            ) from error
        with atomic_file(out) as target:
            target.write(file.read_bytes())
