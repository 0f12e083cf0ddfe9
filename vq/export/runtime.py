"""What all ONNX files of ours share: packages, opsets, sizes, and a run in onnxruntime."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vq.errors import ConfigError

__all__ = [
    "BATCHES",
    "OPSET",
    "OPSETS",
    "check_opset",
    "check_size",
    "described",
    "need",
    "session",
]

#: Version of ONNX's operators that is written, and those that torch's exporter writes.
OPSET = 20
OPSETS = range(18, 24)
#: Batches that every export is tried with.
BATCHES = (1, 2, 5)
#: Protocol buffers end at 2 GiB; a graph needs little beside its weights.
_BYTES_MAX = 2**31 - 2**24

Arrays = list[NDArray[Any]]


def need(*packages: str) -> None:
    """Require packages of the extra ``onnx``.

    Raises
    ------
    ConfigError
        At the first that is not installed.
    """
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ConfigError(
                f"exporting to ONNX: package {package!r} must be installed, not absent; "
                "run: pip install 'signbook[onnx]'"
            ) from error


def check_opset(opset: int) -> None:
    """Require an opset that can be written.

    Raises
    ------
    ConfigError
    """
    if opset not in OPSETS:
        raise ConfigError(f"opset must be {OPSETS[0]} to {OPSETS[-1]}, not {opset}")


def check_size(what: str, nbytes: int) -> None:
    """Require that weights of so many bytes fit one ONNX file.

    Raises
    ------
    ConfigError
    """
    if nbytes > _BYTES_MAX:
        raise ConfigError(
            f"{what}: weights must fit the 2 GB of one ONNX file, not be {nbytes} bytes; "
            "export with --quantized, or --to dense"
        )


def session(
    what: str, data: bytes, *, fused: bool = True
) -> Callable[[Mapping[str, NDArray[Any]]], Arrays]:
    """Load an ONNX file for the CPU, and return what runs it.

    Parameters
    ----------
    what : str
        What was exported, as errors say it.
    data : bytes
        The file.
    fused : bool
        Let onnxruntime rewrite the graph. Without, every node is computed as ONNX defines it.

    Raises
    ------
    ConfigError
        Here or from what is returned, if onnxruntime cannot load or run it.
    """
    import onnxruntime as ort

    def refused(error: Exception) -> ConfigError:
        return ConfigError(
            f"{what} must run in onnxruntime {ort.__version__} once exported, but it raises "
            f"{type(error).__name__}; try another opset"
        )

    options = ort.SessionOptions()
    options.log_severity_level = 4  # errors come as exceptions
    # Products with int8 weights in fp32; by itself onnxruntime rounds their inputs to int8, too.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    if not fused:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        loaded = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's classes have no base of their own
        raise refused(error) from error
    names = {value.name for value in loaded.get_inputs()}

    def run(inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        try:
            found = loaded.run(None, {n: value for n, value in inputs.items() if n in names})
        except Exception as error:
            raise refused(error) from error
        return [np.asarray(value) for value in found]

    return run


def described(values: Any) -> list[dict[str, Any]]:
    """Name, dtype and shape of a graph's inputs or outputs; an axis that is free is a name."""
    import onnx

    rows = []
    for value in values:
        tensor = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        shape = [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]
        rows.append({"name": value.name, "dtype": str(dtype), "shape": shape})
    return rows
