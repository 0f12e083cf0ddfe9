"""Strips: together they are the step, and each fits the buffers with the rows that it needs."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hwsim.program.memory import pixel_bytes
from hwsim.program.step import Numbers, Step, Tensor
from hwsim.program.strips import rows_at_once, strips_of
from rtl import AcceleratorConfig
from rtl.transfer.load import SLOTS
from vq.container import GRANULE_BYTES

SMALL = AcceleratorConfig(
    bus_bits=64, rows=8, columns=8, d_max=8, input_bytes=1 << 11, output_bytes=1 << 11,
    accumulators=64, scale_lanes=4,
)  # fmt: skip


def window(height, width, channels, kernel, stride, before, after, dilation) -> Step:
    """A step of one axis of windows, on images ``width`` wide."""
    out = (height + before + after - (kernel - 1) * dilation - 1) // stride + 1
    return Step(
        "w", Tensor("x", channels, height, width), Tensor("y", channels, out, width),
        Numbers.same(channels), kernel=(kernel, 1), stride=(stride, 1), before=(before, 0),
        dilation=(dilation, 1),
    )  # fmt: skip


def rows_needed(step: Step, row: int) -> set[int]:
    """Rows of the source that one row of the target sees, by definition."""
    top = row * step.stride[0] - step.before[0]
    taps = {top + tap * step.dilation[0] for tap in range(step.kernel[0])}
    return {y for y in taps if 0 <= y < step.source.height}


@given(
    st.integers(1, 60), st.integers(1, 8), st.integers(1, 20), st.integers(1, 4),
    st.integers(1, 3), st.integers(0, 3), st.integers(0, 3), st.integers(1, 3),
)  # fmt: skip
def test_strips_are_the_step_and_fit(height, width, channels, kernel, stride, before, after, d):
    assume(height + before + after >= (kernel - 1) * d + 1)
    step = window(height, width, channels, kernel, stride, before, after, d)
    assume(rows_at_once(step, SMALL) > 0)
    strips = list(strips_of(step, SMALL))
    rows = [row for s in strips for row in range(s.first_row, s.first_row + s.rows)]
    assert rows == list(range(step.target.height))
    source_row = width * pixel_bytes(channels, SMALL)
    for strip in strips:
        held = range(strip.first_input_row, strip.first_input_row + strip.input_rows)
        assert held and 0 <= held[0] and held[-1] < height
        for row in range(strip.first_row, strip.first_row + strip.rows):
            assert rows_needed(step, row) <= set(held)
        assert strip.positions == strip.rows * width <= SMALL.accumulators
        assert strip.first_row * width * pixel_bytes(channels, SMALL) % GRANULE_BYTES == 0
        assert strip.input_rows * source_row + GRANULE_BYTES <= SMALL.input_bytes // SLOTS


@pytest.mark.parametrize(
    ("step", "rows"),
    [
        (window(4, 4, 8, 1, 1, 0, 0, 1), 4),  # all of it
        (window(64, 1, 8, 1, 1, 0, 0, 1), 64),  # as many as there are accumulators
        (window(65, 1, 8, 1, 1, 0, 0, 1), 64),
        (window(65, 2, 8, 1, 1, 0, 0, 1), 32),
        (window(65, 3, 8, 1, 1, 0, 0, 1), 16),  # 24 bytes a row: a granule ends behind 8
        (window(9, 65, 8, 1, 1, 0, 0, 1), 0),
        (window(65, 1, 300, 1, 1, 0, 0, 1), 0),  # 304 bytes: only a fourth row ends a granule
        (window(65, 1, 1100, 1, 1, 0, 0, 1), 0),
    ],
)
def test_rows_at_once(step, rows):
    assert rows_at_once(step, SMALL) == rows


def test_pooling_is_not_cut():
    source = Tensor("x", 8, 10, 10)
    step = Step("p", source, Tensor("y", 8), Numbers.same(8), pool=True)
    (strip,) = strips_of(step, SMALL)
    assert (strip.positions, strip.input_rows) == (1, 10)
    large = Step("p", Tensor("x", 8, 40, 10), Tensor("y", 8), Numbers.same(8), pool=True)
    assert rows_at_once(large, SMALL) == 0
