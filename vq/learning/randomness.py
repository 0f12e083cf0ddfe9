"""The random state that a training run depends on: kept, restored, seeded."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Generator

__all__ = ["capture", "generators_of", "restore", "seeded"]


def generators_of(loader: object) -> list[Generator]:
    """Generators that a loader draws from: its own, its samplers' and its dataset's.

    A loader that changes the batches of another one has that as its ``batches``.
    """
    loaders: dict[int, object] = {}
    while loader is not None and id(loader) not in loaders:
        loaders[id(loader)] = loader
        loader = vars(loader).get("batches") if hasattr(loader, "__dict__") else None
    found: dict[int, Generator] = {}
    for each in loaders.values():
        parts = [each]
        parts += [getattr(each, name, None) for name in ("sampler", "batch_sampler", "dataset")]
        parts.append(getattr(parts[2], "sampler", None))
        for part in parts:
            for value in getattr(part, "__dict__", {}).values():
                if isinstance(value, Generator):
                    found.setdefault(id(value), value)
    return list(found.values())


def capture(generators: list[Generator]) -> dict[str, Any]:
    """Take the global states of torch, CUDA, numpy and Python, and those of ``generators``.

    Only tensors and plain values, so that a checkpoint loads without running code.
    """
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    cuda = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if cuda else None,
        "numpy": (str(name), keys.tolist(), int(position), int(has_gauss), float(gauss)),  # type: ignore[union-attr]
        "python": random.getstate(),
        "generators": [generator.get_state() for generator in generators],
    }


def restore(state: dict[str, Any], generators: list[Generator]) -> None:
    """Put back what :func:`capture` took."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), position, has_gauss, gauss))
    random.setstate(state["python"])
    for generator, own in zip(generators, state["generators"], strict=True):
        generator.set_state(own)


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Seed the global states for a while; afterwards they are as before. None does nothing."""
    if seed is None:
        yield
        return
    before = capture([])
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        yield
    finally:
        restore(before, [])
