"""Models that are trained here when first asked for, and kept in the cache.

Each has a name that commands take, such as ``py:signbook.diffusion:digits_dit?seed=1``.
"""

import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import nn

from signbook.data import pictures
from signbook.diffusion import training
from signbook.zoo import ddpm, dit, judge
from signbook.zoo.checkpoints import load_weights
from signbook.zoo.judge import Judge
from vq.errors import ConfigError
from vq.native import cached

__all__ = [
    "digits_dit",
    "digits_judge",
    "mnist_dit",
    "mnist_judge",
    "trained",
]

_FILE = "model.safetensors"


class _Plan(NamedTuple):
    """How a model comes to be.

    Attributes
    ----------
    build : callable
        Makes it with fresh weights.
    train : callable
        Trains it on images, so many steps.
    pictures : str
        What on.
    steps : int
    sources : tuple of modules
        Whose files say what it becomes.
    """

    build: Callable[[], nn.Module]
    train: Callable[..., None]
    pictures: str
    steps: int
    sources: tuple[ModuleType, ...]


_DENOISER = (training, dit, ddpm, pictures)
_CLASSIFIER = (training, judge, pictures)
_PLANS = {
    "digits-dit": _Plan(dit.digits, training.train_denoiser_, "digits", 5000, _DENOISER),
    "mnist-dit": _Plan(dit.mnist, training.train_denoiser_, "mnist", 5000, _DENOISER),
    "digits-judge": _Plan(judge.digits, training.train_classifier_, "digits", 1000, _CLASSIFIER),
    "mnist-judge": _Plan(judge.mnist, training.train_classifier_, "mnist", 1000, _CLASSIFIER),
}


def trained(name: str, seed: int = 0) -> nn.Module:
    """Load a model from the cache (:func:`vq.native.cache_folder`), or train it first.

    It is kept under a hash of the seed, the number of steps and the source files that say what it
    becomes: it is trained anew when one of these changes, on one core in about two minutes
    (digits) or a quarter of an hour (MNIST), the classifiers in one.

    Parameters
    ----------
    name : str
        "digits-dit", "mnist-dit", "digits-judge" or "mnist-judge".
    seed : int
        Of its start and of all that training draws.

    Raises
    ------
    ConfigError
        If there is no such model, the seed is negative, or its data are not there.
    OutputError
        If the cache folder cannot be written.
    """
    if name not in _PLANS:
        raise ConfigError(f"trained model must be one of {', '.join(_PLANS)}, not {name!r}")
    if seed < 0:
        raise ConfigError(f"seed must be 0 or more, not {seed}")
    plan = _PLANS[name]

    texts = [Path(inspect.getfile(source)).read_bytes() for source in plan.sources]
    key = hashlib.sha256(b"\0".join([f"{seed} {plan.steps}".encode(), *texts])).hexdigest()[:20]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = plan.build()

        def make(folder: Path) -> None:
            plan.train(model, pictures.load_pictures(plan.pictures, "train"), steps=plan.steps)
            save_file(model.state_dict(), folder / _FILE)

        return load_weights(model, cached(f"{name}-{key}", make) / _FILE)


def digits_dit(*, seed: int = 0) -> nn.Module:
    """Diffusion transformer of 8x8 digits, trained."""
    return trained("digits-dit", seed)


def mnist_dit(*, seed: int = 0) -> nn.Module:
    """Diffusion transformer of MNIST, trained."""
    return trained("mnist-dit", seed)


def digits_judge(*, seed: int = 0) -> Judge:
    """Classifier of 8x8 digits, trained."""
    return _judge("digits-judge", seed)


def mnist_judge(*, seed: int = 0) -> Judge:
    """Classifier of MNIST, trained."""
    return _judge("mnist-judge", seed)


def _judge(name: str, seed: int) -> Judge:
    model = trained(name, seed)
    assert isinstance(model, Judge)
    return model
