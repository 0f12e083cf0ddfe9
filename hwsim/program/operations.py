"""Nodes of a graph of tokens as operations of the vector unit: fields, and numbers in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtl.vector.channels import CHANNEL_BYTES
from rtl.vector.layer import VectorOp
from vq.integer.tokens.arithmetic import EXP2, STREAM
from vq.integer.tokens.graph import TokenNode

__all__ = ["COPY", "Operation", "operation_of", "refusal_of", "shares_of"]

_TABLE = np.dtype("<i2")
_CHANNEL = np.dtype([("bias", "<i4"), ("multiplier", "<i2"), ("shift", "u1"), ("unused", "u1")])
assert _CHANNEL.itemsize == CHANNEL_BYTES


@dataclass(frozen=True)
class Operation:
    """What the unit is told of a node.

    Attributes
    ----------
    fields : mapping
        Of :data:`rtl.vector.layer.VECTOR_LAYER`, but for rows, channels and lengths.
    numbers : bytes
        What it loads: a table, or numbers of channels, in whole beats.
    loads : int
        How often numbers of channels come.
    """

    fields: Mapping[str, Any]
    numbers: bytes = b""
    loads: int = 1


#: Values as they are: ``(2 x + 1) >> 1``.
COPY = Operation({"op": VectorOp.NARROW, "own": 2, "shift": 1})

_NORMS = {"rms_norm": VectorOp.RMS_NORM, "layer_norm": VectorOp.LAYER_NORM}
_SCALED = {
    "narrow": VectorOp.NARROW,
    "product": VectorOp.PRODUCT,
    "mean": VectorOp.MEAN,
    "rotary": VectorOp.ROTARY,
}


def refusal_of(node: TokenNode, forms: Sequence[str], lanes: int) -> str:
    """Why the unit cannot run a node whose inputs have these forms, or nothing."""
    if STREAM in (node.form, *forms):
        return "form must not be int32: the vector unit has 16 bits"
    if node.op == "rotary" and node.settings["pairs"] == "halves":
        half = node.shape[0] // node.settings["heads"] // 2
        if half % lanes:
            return f"half a head must be a multiple of {lanes} (lanes of the unit), not {half}"
    return ""


def operation_of(
    node: TokenNode,
    forms: Sequence[str],
    own: Mapping[str, NDArray[np.integer]],
    *,
    lanes: int,
    angles: Mapping[str, NDArray[np.integer]] | None = None,
) -> Operation:
    """The operation of a node that moves or maps rows.

    Parameters
    ----------
    node : TokenNode
        One that :func:`refusal_of` lets pass, of an operation on rows but attention.
    forms : sequence of str
        Of its inputs.
    own : mapping of field to integers
        Its numbers, as the graph has them.
    lanes : int
        Of the unit.
    angles : mapping of field to [rows, D / 2], optional
        Of ``rotary``: cosines and sines of the rows that it turns.
    """
    narrow = int(node.form != "int16")
    if node.op in ("slice", "select", "place"):
        return Operation({**COPY.fields, "narrow": narrow})
    if node.op == "to_rows":
        return Operation({"op": VectorOp.ROWS, "narrow": 1})
    if node.op == "add":
        first, second = own["multiplier"].tolist()
        fields = {"op": VectorOp.ADD, "own": first, "other": second, "shift": int(own["shift"][0])}
        return Operation({**fields, "narrow": narrow})
    if node.op == "function":
        return _function(own["entries"], wide=forms[0] == "int16", narrow=narrow, lanes=lanes)
    if node.op in _NORMS:
        numbers = _channels(own["bias"], own["multiplier"], own["shift"], lanes)
        epsilon = int(own["epsilon"][0])
        fields = {"op": _NORMS[node.op], "epsilon": epsilon, "loads_channels": 1, "narrow": narrow}
        return Operation(fields, numbers)
    scaled = {"own": int(own["multiplier"][0]), "shift": int(own["shift"][0]), "narrow": narrow}
    fields = {"op": _SCALED[node.op], **scaled}
    if node.op != "rotary":
        return Operation(fields)
    assert angles is not None
    heads, adjacent = node.settings["heads"], node.settings["pairs"] == "adjacent"
    turned = [
        _angles(cosine, sine, lanes, adjacent=adjacent)
        for cosine, sine in zip(angles["cosine"], angles["sine"], strict=True)
    ]
    fields |= {"halves": int(not adjacent), "loads_channels": 1, "same_channels": heads}
    return Operation(fields, b"".join(turned), len(turned))


def shares_of(own: Mapping[str, NDArray[np.integer]], *, lanes: int, loads: bool) -> Operation:
    """The softmax of an attention whose shares are rows; its table stays for the next one."""
    fields = {
        "op": VectorOp.SHARES, "own": int(own["multiplier"][1]), "shift": int(own["shift"][1]),
        "narrow": 1, "table": 1, "loads_table": int(loads),
    }  # fmt: skip
    table = np.append(EXP2, 0).astype("<u2").view(_TABLE)
    return Operation(fields, _beats(table.tobytes(), lanes) if loads else b"")


def _function(entries: NDArray[np.integer], *, wide: bool, narrow: int, lanes: int) -> Operation:
    """By a table; the last entry of one of 256 is never used, but its difference is stored."""
    table = entries if wide else np.append(entries, entries[-1])
    fields = {
        "op": VectorOp.FUNCTION, "wide": int(wide), "narrow": narrow, "loads_table": 1,
        "shift": 16 if wide and narrow else 8,
    }  # fmt: skip
    return Operation(fields, _beats(table.astype(_TABLE).tobytes(), lanes))


def _angles(
    cosine: NDArray[np.integer], sine: NDArray[np.integer], lanes: int, *, adjacent: bool
) -> bytes:
    """Numbers of the channels of a head: cosines, and sines with the sign that each one has."""
    axis = 1 if adjacent else 0
    wide = sine.astype(np.int64)
    cosines = np.stack([cosine, cosine], axis).reshape(-1)
    sines = np.stack([-wide, wide], axis).reshape(-1)
    return _channels(sines, cosines, np.zeros(2 * len(cosine), np.uint8), lanes)


def _channels(
    bias: NDArray[np.integer],
    multiplier: NDArray[np.integer],
    shift: NDArray[np.integer],
    lanes: int,
) -> bytes:
    """Numbers of every channel, and of none behind the last one of a beat of the lanes."""
    numbers = np.zeros(-(-len(bias) // lanes) * lanes, _CHANNEL)
    for name, values in (("bias", bias), ("multiplier", multiplier), ("shift", shift)):
        numbers[name][: len(bias)] = values
    return numbers.tobytes()


def _beats(raw: bytes, lanes: int) -> bytes:
    """Whole beats of 16 bits for every lane."""
    return raw + bytes(-len(raw) % (2 * lanes))
