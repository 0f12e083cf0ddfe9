"""Measurements in a process of their own, so that its peak of memory is theirs, too."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

import torch

__all__ = ["alone"]

T = TypeVar("T")


def alone(function: Callable[..., T], *given: object) -> T:
    """Call a function in a new process, on one core."""
    with ProcessPoolExecutor(1, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        return pool.submit(function, *given).result()
