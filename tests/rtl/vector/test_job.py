"""What a job of the vector unit takes in memory."""

from rtl.vector.job import JOB, has_factors, has_other, number_words, row_words
from rtl.vector.layer import VectorOp


def test_words_of_rows_and_numbers():
    """Two beats of int8 are a word, an odd one too; 257 entries, and 8 bytes for a channel."""
    assert [row_words(beats, 1) for beats in (1, 2, 3)] == [1, 1, 2]
    assert [row_words(beats, 0) for beats in (1, 2, 3)] == [1, 2, 3]
    for lanes in (4, 8):
        table, channels = number_words(lanes)
        assert (table - 1) * lanes < 257 <= table * lanes
        assert channels * 2 * lanes == 8 * lanes


def test_second_operands_and_factors():
    assert [op.name for op in VectorOp if has_other(op)] == ["ADD", "PRODUCT"]
    assert [op.name for op in VectorOp if has_factors(op)] == ["ROWS", "SHARES"]


def test_it_fits_a_descriptor():
    assert JOB.size + 8 <= 8 * 256
