"""Models that are trained here: once for each version of their sources, then found in the cache."""

import hashlib
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import torch
from safetensors.torch import load_model, save_model
from torch import nn

from vq.errors import ConfigError
from vq.native import cached

__all__ = ["trained"]

M = TypeVar("M", bound=nn.Module)
_WEIGHTS = "weights.safetensors"


def trained(
    name: str,
    build: Callable[[], M],
    train: Callable[[M, int], object],
    *,
    sources: Iterable[ModuleType | type | Callable[..., Any]],
    seed: int = 0,
) -> M:
    """Train a model, or find it in the user's cache (:func:`vq.native.cache_folder`).

    Processes that want the same one wait for the one that trains it. torch's random state is what
    it was, afterwards.

    Parameters
    ----------
    name : str
        What the model is called in the cache.
    build : callable
        Makes the model with fresh weights, by torch's random state.
    train : callable
        Trains the model that it is given, in place, with a seed of its own. It is called where
        torch's random state follows from ``seed``, too.
    sources : iterable of modules, classes and functions
        Everything in whose files something changes the trained weights. Another content of one of
        these files is another model; data, torch and the machine are not looked at.
    seed : int
        Of the fresh weights, and of the training.

    Returns
    -------
    nn.Module
        In evaluation mode.

    Raises
    ------
    ConfigError
        If ``seed`` is below 0.
    OutputError
        If the cache folder cannot be written.
    """
    if seed < 0:
        raise ConfigError(f"seed must be 0 or more, not {seed}")
    # Several functions may be of one file, and files may lie elsewhere on another machine.
    texts = sorted({Path(inspect.getfile(source)).read_text() for source in sources})
    key = hashlib.sha256("\0".join([str(seed), *texts]).encode()).hexdigest()[:20]

    def make(folder: Path) -> None:
        model = build()
        train(model, seed)
        save_model(model, str(folder / _WEIGHTS))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        folder = cached(f"{name}-{key}", make)
        model = build()
    load_model(model, folder / _WEIGHTS)
    return model.eval()
