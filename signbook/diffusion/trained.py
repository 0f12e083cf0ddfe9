"""Models that are trained here when first asked for, and kept in the cache.

Each has a name that commands take, such as ``py:signbook.diffusion:digits_dit?seed=1``.
"""

from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

from torch import nn

from signbook.data import pictures
from signbook.diffusion import training
from signbook.zoo import ddpm, dit, judge, preconditioned, unet
from signbook.zoo.judge import Judge
from signbook.zoo.trained import trained as once
from vq.errors import ConfigError

__all__ = [
    "digits_dit",
    "digits_judge",
    "mnist_dit",
    "mnist_judge",
    "mnist_unet",
    "trained",
]


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


_SHARED = (training, preconditioned, ddpm, pictures)
_DENOISER, _UNET = (dit, *_SHARED), (unet, *_SHARED)
_CLASSIFIER = (training, judge, pictures)
_PLANS = {
    "digits-dit": _Plan(dit.digits, training.train_denoiser_, "digits", 5000, _DENOISER),
    "mnist-dit": _Plan(dit.mnist, training.train_denoiser_, "mnist", 5000, _DENOISER),
    "mnist-unet": _Plan(unet.mnist, training.train_denoiser_, "mnist", 3000, _UNET),
    "digits-judge": _Plan(judge.digits, training.train_classifier_, "digits", 1000, _CLASSIFIER),
    "mnist-judge": _Plan(judge.mnist, training.train_classifier_, "mnist", 1000, _CLASSIFIER),
}


def trained(name: str, seed: int = 0) -> nn.Module:
    """Load a model from the cache (:func:`vq.native.cache_folder`), or train it first.

    It is trained anew when the source files that say what it becomes change
    (:func:`signbook.zoo.trained.trained`), on one core in about two minutes (digits) or a quarter
    of an hour (MNIST; the U-Net ten minutes), the classifiers in one.

    Parameters
    ----------
    name : str
        "digits-dit", "mnist-dit", "mnist-unet", "digits-judge" or "mnist-judge".
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
    plan = _PLANS[name]

    def train(model: nn.Module, seed: int) -> None:
        images = pictures.load_pictures(plan.pictures, "train")
        plan.train(model, images, steps=plan.steps)

    called = f"{name}-{plan.steps}"
    return once(called, plan.build, train, sources=plan.sources, seed=seed)


def digits_dit(*, seed: int = 0) -> nn.Module:
    """Diffusion transformer of 8x8 digits, trained."""
    return trained("digits-dit", seed)


def mnist_dit(*, seed: int = 0) -> nn.Module:
    """Diffusion transformer of MNIST, trained."""
    return trained("mnist-dit", seed)


def mnist_unet(*, seed: int = 0) -> nn.Module:
    """Convolutional noise predictor of MNIST, told the class, trained."""
    return trained("mnist-unet", seed)


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
