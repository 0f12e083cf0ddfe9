"""The row buffer when it is full."""

import numpy as np

from tests.rtl.vector.operations import MAKERS, wide
from tests.rtl.vector.rows import QUICK, check


def test_more_rows_than_fit():
    """Longest rows come faster than they go; the ring turns several times."""
    rng = np.random.default_rng(5)
    check([MAKERS["product"](rng, wide(rng, (6, QUICK.row_max)))])
