"""What all tests share: one thread per process, fixed seeds."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _repeatable() -> Iterator[None]:
    """Two workers share two cores; a second thread in each only makes them wait."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
