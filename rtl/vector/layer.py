"""What the vector unit is told of an operation, and the streams at its borders."""

from amaranth import signed, unsigned
from amaranth.lib import data, enum

from rtl.vector.config import VectorConfig

__all__ = ["FACTOR", "VECTOR_LAYER", "VectorOp", "values_layout"]


class VectorOp(enum.Enum, shape=4):  # type: ignore[call-arg]
    """Operations; rules in ``docs/spec-integer-graph.md``, in the order of x, y and numbers."""

    #: ``(x · own) >> shift``
    NARROW = 0
    #: ``(x · own + y · other) >> shift``
    ADD = 1
    #: ``(x · y · own) >> shift``
    PRODUCT = 2
    #: By the table, between its entries if ``wide``; ``shift`` is 8, or 16 for int8 of int16.
    FUNCTION = 3
    #: ``(x · cos + partner · sin) · own >> shift``, both of the channel, the sine with its sign.
    ROTARY = 4
    #: int8 of each row's greatest magnitude, which is its factor.
    ROWS = 5
    RMS_NORM = 6
    LAYER_NORM = 7
    #: Softmax, in shares of the greatest with a factor: int8. ``own``, ``shift``: of the exponent.
    SHARES = 8
    #: Softmax in steps of 2**-14: int16.
    SHARES_WIDE = 9
    #: Of all rows one: ``mean · own >> shift``, the mean being 256 times as fine.
    MEAN = 10


#: An operation on rows of ``channels`` values. Values behind the ``length`` of a row are zero where
#: it matters: a softmax leaves them out. The length of the first row grows by one with every row
#: if ``longer``, up to ``length_most``; all operations but a softmax have ``channels`` for both.
VECTOR_LAYER = data.StructLayout(
    {
        "op": VectorOp,
        "rows": 17,  # at least 1
        "channels": 14,  # at least 1
        "length": 14,
        "length_most": 14,
        "longer": 1,
        "narrow": 1,  # outputs are int8, not int16
        "wide": 1,  # inputs of a function are int16, not int8
        "halves": 1,  # of a rotation: partners are half a row apart, whole beats; not neighbours
        "own": signed(16),
        "other": signed(16),
        "shift": 6,
        "epsilon": 61,  # at least 1
        "table": 1,  # which of the two tables is used, or loaded
        "loads_table": 1,
        "loads_channels": 1,  # numbers of channels, behind the table
        "same_channels": 16,  # rows after which new numbers come; 0 if they do for all rows
    }
)

#: ``codes * factor / 2**shift`` is what a row of codes stands for.
FACTOR = data.StructLayout({"factor": unsigned(15), "shift": 6})


def values_layout(config: VectorConfig) -> data.ArrayLayout:
    """A beat: successive channels of a row. What lies behind the last one is not read."""
    return data.ArrayLayout(signed(16), config.lanes)
