"""The two formats read from their descriptions alone: slow, and shared with no other code."""

import numpy as np


def fields(words, bits: int, count: int) -> list[int]:
    """Bit fields of a run of int32 words, the first in the lowest bits."""
    number = int.from_bytes(np.asarray(words, "<i4").tobytes(), "little")
    return [number >> (bits * i) & ((1 << bits) - 1) for i in range(count)]


def unpack_compressed_tensors(tensors, bits: int) -> np.ndarray:
    """Weight [O, I] float32 of ``weight_packed``, ``weight_scale``, ... of one layer."""
    outputs, inputs = tensors["weight_shape"]
    half = 1 << (bits - 1)
    rows = [fields(row, bits, inputs) for row in tensors["weight_packed"]]
    codes = np.array(rows, np.float32) - half
    scale = tensors["weight_scale"].astype(np.float32)
    zero = np.zeros(scale.shape, np.float32)
    if "weight_zero_point" in tensors:
        columns = [fields(column, bits, outputs) for column in tensors["weight_zero_point"].T]
        zero = np.array(columns, np.float32).T - half
    each = inputs // scale.shape[1]
    return (codes - zero.repeat(each, axis=1)) * scale.repeat(each, axis=1)


def unpack_gptq(tensors, bits: int, version: int) -> np.ndarray:
    """Weight [O, I] float32 of ``qweight``, ``qzeros``, ``scales`` and ``g_idx`` of one layer."""
    group = tensors["g_idx"]
    outputs = tensors["scales"].shape[1]
    codes = np.array([fields(column, bits, len(group)) for column in tensors["qweight"].T])
    zeros = np.array([fields(row, bits, outputs) for row in tensors["qzeros"]])
    zeros = zeros.T[:, group] + (version == 1)
    scale = tensors["scales"].astype(np.float32).T[:, group]
    return (codes - zeros).astype(np.float32) * scale
