"""Exports by the names of the command line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import vq
from signbook.files import write_json
from signbook.naming import resolve_data, resolve_model
from signbook.packed import FORMATS, export_packed
from vq.errors import ConfigError
from vq.export import export_dense, export_dram, export_onnx

__all__ = ["TARGETS", "export_named"]

TARGETS = ("dense", "onnx", "dram", *FORMATS)


def export_named(
    file: Path,
    to: str,
    out: Path,
    *,
    dtype: str = "fp32",
    model: str | None = None,
    data: str | None = None,
    base: int = 0,
    dense_others: bool = False,
) -> dict[str, Any]:
    """Write a container in another form.

    Parameters
    ----------
    to : str
        "dense": safetensors. "onnx": needs ``model``, the architecture, and ``data``, whose first
        batch gives the input's shape. "dram": the memory image, and beside it ``OUT.json``, the
        map. "compressed-tensors", "gptq": a folder for transformers; needs ``model`` where no
        ``config.json`` lies beside ``file``.
    dtype : str
        Of dense weights: "fp32", "bf16" or "fp16".
    base : int
        Address of the memory image.
    dense_others : bool
        In a folder for transformers, store the layers that its format cannot hold as dense
        weights.

    Returns
    -------
    dict
        The ``signbook.export/1`` document: what was written where, and which layers of a folder
        for transformers are ``packed`` and which ``dense``.

    Raises
    ------
    ConfigError, ContainerError, OutputError
    """
    if to not in TARGETS:
        raise ConfigError(f"--to must be one of {', '.join(TARGETS)}, not {to!r}")
    files, layers = [out], {}
    if to in FORMATS:
        layers = export_packed(file, to, out, model=model, dense_others=dense_others)
        files = layers.pop("files")
    elif to == "dense":
        export_dense(file, out, dtype=dtype)
    elif to == "dram":
        files.append(out.with_name(out.name + ".json"))
        write_json(files[1], export_dram(file, out, base=base))
    else:
        if model is None or data is None:
            raise ConfigError("--to onnx must come with --model, the architecture, and --data")
        loaded = vq.load(file, into=resolve_model(model, pretrained=False))
        export_onnx(loaded, _first_inputs(data), out)
    written = [{"file": str(path), "bytes": path.stat().st_size} for path in files]
    return {"schema": "signbook.export/1", "to": to, "written": written, **layers}


def _first_inputs(data: str) -> Any:
    batch = next(iter(resolve_data(data).batches), None)
    inputs = batch[0] if isinstance(batch, tuple | list) else batch
    if inputs is None or isinstance(inputs, Mapping):
        raise ConfigError(f"{data}: first batch must hold inputs by position")
    return inputs
