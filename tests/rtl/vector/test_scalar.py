"""Scalar stage at the extremes of the longest row that there can be."""

import numpy as np
import pytest
from amaranth.sim import Simulator

from rtl.vector.config import ROW_LIMIT, VectorConfig
from rtl.vector.layer import VectorOp
from rtl.vector.scalar import ScalarUnit
from vq.integer.tokens.arithmetic import WIDE_MAX, lengths_of, normalised

CONFIG = VectorConfig(lanes=4, row_max=ROW_LIMIT)
N = ROW_LIMIT
FULL = np.full(N, WIDE_MAX)
HALF = np.where(np.arange(N) < N // 2, WIDE_MAX, -WIDE_MAX)
LONELY = np.where(np.arange(N) == 0, -WIDE_MAX, 0)


def numbers(x, epsilon, centred):
    """What the stage makes of a row, and the cycles that it takes."""
    dut = ScalarUnit(CONFIG)
    found = {}
    op = VectorOp.LAYER_NORM if centred else VectorOp.RMS_NORM

    async def bench(ctx):
        ctx.set(dut.layer.op, op)
        ctx.set(dut.layer.channels, len(x))
        ctx.set(dut.layer.epsilon, epsilon)
        ctx.set(dut.reduced.p.total, int(x.sum()))
        ctx.set(dut.reduced.p.squares, int((x * x).sum()))
        ctx.set(dut.reduced.valid, 1)
        cycles = 0
        while not ctx.get(dut.rows.valid):
            await ctx.tick()
            ctx.set(dut.reduced.valid, 0)
            cycles += 1
            assert cycles < 100
        found["cycles"] = cycles
        for name in ("scale", "offset", "shift"):
            found[name] = ctx.get(getattr(dut.rows.payload, name))

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return found


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("epsilon", [1, 2**60])
@pytest.mark.parametrize("x", [FULL, -FULL, HALF, LONELY, np.zeros(N, np.int64), LONELY[:1]])
def test_norm(x, epsilon, centred):
    """Every value of the row is mapped as numpy maps it, and all of it fits 48 bits."""
    found = numbers(x, epsilon, centred)
    values = np.unique(x)
    mapped = values * found["scale"] - found["offset"]
    assert np.abs(values * found["scale"]).max() < 2**46
    assert np.abs(mapped).max() < 2**46
    half = (1 << found["shift"]) >> 1
    want = dict(zip(x.tolist(), normalised(x[None], epsilon, centred=centred)[0], strict=True))
    assert ((mapped + half) >> found["shift"]).tolist() == [want[v] for v in values.tolist()]
    assert found["cycles"] <= 60


def test_sums_fit():
    """Of rows of -2**15, which is more than any int16 value of a graph."""
    most = np.array([N * 2**15, N * 2**30, N * N * 2**30 + 2**60])
    assert lengths_of(most[:1]) + 1 <= CONFIG.total_bits
    assert lengths_of(most[1:2]) <= CONFIG.squares_bits
    assert lengths_of(most[2:]) <= 62
    assert 2 * lengths_of(most[:1]) <= 62
