"""An operation of the vector unit in memory: where its rows lie and where they go."""

from amaranth import Value
from amaranth.lib import data

from rtl.bus.pieces import PIECES
from rtl.vector.layer import VECTOR_LAYER, VectorOp
from rtl.vector.table import TABLE_ENTRIES

__all__ = ["JOB", "has_factors", "has_other", "number_words", "row_words"]

#: Operands and outputs are rows of whole beats of the bus: of int8 if narrow, else of int16. Behind
#: each row of outputs that has a factor lies a beat with this: 15 bits, then 6 of its shift from
#: bit 16 on.
JOB = data.StructLayout(
    {
        "operation": VECTOR_LAYER,
        "values_narrow": 1,
        "other_narrow": 1,
        "loads": 17,  # of numbers of channels: 1, or one for every ``same_channels`` rows
        "values": PIECES,
        "other": PIECES,  # of ADD and PRODUCT
        "numbers": PIECES,  # of what is loaded: tables, then numbers of channels
        "outputs": PIECES,
        "record": 58,  # granule of the layer's record
    }
)


def has_other(op: Value) -> Value:
    """Whether an operation has second operands."""
    return (op == VectorOp.ADD) | (op == VectorOp.PRODUCT)


def has_factors(op: Value) -> Value:
    """Whether an operation gives a factor for each row."""
    return (op == VectorOp.ROWS) | (op == VectorOp.SHARES)


def row_words(beats: Value, narrow: Value) -> Value:
    """Beats of the bus in which a row lies that is so many beats of lanes."""
    return (beats + narrow) >> narrow


def number_words(lanes: int) -> tuple[int, int]:
    """Beats of the bus of a table, and of the numbers of channels of one beat of lanes."""
    return -(-TABLE_ENTRIES // lanes), 4
