"""A container as an ordinary safetensors file: every weight decoded."""

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vq.container import Container, ContainerError, atomic_file, open_container
from vq.container.constants import DTYPE_BYTES
from vq.errors import ConfigError
from vq.progress import track

__all__ = ["DTYPES", "export_dense"]

#: Names of dtypes on the command line, and in a safetensors file.
DTYPES = {"fp32": "F32", "bf16": "BF16", "fp16": "F16"}


def export_dense(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    dtype: str = "fp32",
    rom: Mapping[str, NDArray[np.int8]] | None = None,
    progress: bool = True,
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
    progress : bool
        Show a progress bar when standard error is a terminal.

    Returns
    -------
    list of str
        Names of the tensors that were written.

    Raises
    ------
    ConfigError
        If ``dtype`` is none of these, or parts of the model remain at run time.
    ContainerError
        If the file is damaged, or a weight is too large for ``dtype``.
    OutputError
        If ``out`` cannot be written; what existed before is intact.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
    tag = DTYPES[dtype]
    with open_container(path, rom=rom) as container, atomic_file(out) as file:
        container.require_plain("dense weights")
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
        for entry in track(container.layers, "decoding weights", enabled=progress):
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
        if container.is_own(name):
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
