"""The descriptor of an operation."""

from rtl.program import PROGRAM_LAYER
from rtl.vector.layer import FACTOR, VECTOR_LAYER, VectorOp
from rtl.vector.rounds import PROGRAMS


def test_layout():
    """It fits what descriptors of the accelerator have left; a factor fits four bytes."""
    assert VECTOR_LAYER.size == 185 <= PROGRAM_LAYER["unused"].width
    assert FACTOR.size == 21


def test_every_operation_has_a_program():
    assert set(PROGRAMS) == set(VectorOp)
    assert [one.value for one in VectorOp] == list(range(11))
