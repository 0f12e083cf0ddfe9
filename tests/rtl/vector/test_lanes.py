"""Back-pressure on both operands and on the outputs."""

import numpy as np
import pytest

from tests.rtl.vector.operations import MAKERS, wide
from tests.rtl.vector.rows import check


@pytest.mark.parametrize("seed", [0, 1])
def test_an_output_leaves_once(seed):
    """Also when it is taken while the next beat's other operand is missing."""
    rng = np.random.default_rng(seed)
    check([MAKERS[n](rng, wide(rng, (4, 12))) for n in ("add", "product")], idle=0.5, seed=seed)
