"""The vector unit against the arithmetic of integer graphs: every operation, to the bit."""

import numpy as np
import pytest

from rtl.vector.config import VectorConfig
from rtl.vector.layer import VectorOp
from tests.rtl.vector.operations import MAKERS, norm, softmax, wide
from tests.rtl.vector.rows import check
from vq.integer.tokens.arithmetic import WIDE_MAX

#: Rows of one channel, of no whole number of beats, of one beat, of the longest there are.
SIZES = (1, 3, 4, 10, 33, 64)


def sizes(name):
    """Those that an operation can have: pairs, and pairs of whole beats."""
    return {"rotary": (2, 6, 10, 64), "halves": (8, 16, 64)}.get(name, SIZES)


@pytest.mark.parametrize(("idle", "seed"), [(0.0, 0), (0.4, 1)])
def test_every_operation_back_to_back(idle, seed):
    """In random order, with pauses on every side or none."""
    rng = np.random.default_rng(seed)
    names = [*MAKERS, "norm", "softmax", "add"]
    work = []
    for name in rng.permutation(names):
        shape = int(rng.integers(1, 7)), int(rng.choice(sizes(str(name))))
        work.append(MAKERS[str(name)](rng, wide(rng, shape)))
    check(work, idle=idle, seed=seed)


@pytest.mark.parametrize("size", [1, 64])
def test_extremes(size):
    """The greatest sums and products that rows can come to, and rows of zeros."""
    rng = np.random.default_rng(size)
    alternating = WIDE_MAX * (1 - 2 * (np.arange(size) & 1))
    lonely = np.where(np.arange(size) == size - 1, -WIDE_MAX, 0)
    x = np.stack(
        [np.zeros(size), np.full(size, WIDE_MAX), np.full(size, -WIDE_MAX), alternating, lonely]
    ).astype(np.int64)
    names = ["add", "product", "rows", "mean", "narrow"]
    work = [MAKERS[name](rng, x) for name in names]
    for centred in (False, True):
        work += [norm(rng, x, centred=centred, epsilon=e) for e in (1, 2**60)]
    for form in ("rows", "int16"):
        for length in {1, size}:
            work.append(softmax(rng, x, length=length, most=length, shares_of=form))
    check(work)


#: Operation, and cycles of a row of 32 beats and of one of 2, in a row of equal ones.
CYCLES = {
    "narrow": (32, 2),
    "add": (32, 2),
    "product": (64, 4),
    "rows": (32, 17),
    "norm": (64, 46),
    "causal": (96, 21),
}


def work_of(name, rng, shape):
    """Rows of great values; of a norm, epsilons that are greater than all of them."""
    x = rng.integers(-WIDE_MAX, WIDE_MAX + 1, shape)
    return norm(rng, x, epsilon=2**60) if name == "norm" else MAKERS[name](rng, x)


@pytest.mark.parametrize("name", CYCLES)
def test_cycles_of_a_row(name):
    """The longest of coming, scalar stage and rounds, whatever else happens meanwhile."""
    found = []
    for size in (128, 8):
        rng = np.random.default_rng(size)
        counts = (2, 4, 7)
        work = [work_of(name, rng, (n, size)) for n in counts]
        ends = check(work, config=VectorConfig(lanes=4, row_max=256))
        gaps = np.diff(ends)
        found.append((gaps[1] - gaps[0]) / (counts[2] - counts[1]))
    assert tuple(found) == CYCLES[name]


def test_lanes():
    """As many as a wide bus has."""
    rng = np.random.default_rng(3)
    config = VectorConfig(lanes=16, row_max=256)
    x = wide(rng, (3, 70))
    work = [MAKERS[name](rng, x) for name in ("softmax", "norm", "rotary", "softmax_wide", "rows")]
    assert {one.fields["op"] for one in work} >= {VectorOp.SHARES, VectorOp.LAYER_NORM}
    check(work, config=config, idle=0.2)
