"""What all tests share: one thread per process, fixed seeds."""

import gc
import os

# Two workers share two cores; a second thread in each only makes them wait. Libraries read this
# when they are loaded, also those of the processes that tests start.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

from collections.abc import Iterator

import pytest
import torch


def pytest_collection_finish() -> None:
    """Collect garbage among what tests make, not among the million objects of what they import."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _repeatable() -> Iterator[None]:
    torch.set_num_threads(1)  # a test may have changed it
    torch.manual_seed(0)
    yield
