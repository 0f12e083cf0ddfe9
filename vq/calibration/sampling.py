"""What draws images from noise, as those who learn from its course see it.

A :class:`Sampler` is somebody else's: a scheduler, with how a network is called at each of its
steps. Nothing here depends on which.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from vq.calibration.batches import shapes_of
from vq.errors import ConfigError

__all__ = ["Draw", "Noise", "Sampler", "course"]


class Sampler(Protocol):
    """Goes from noise to images, with nothing random on the way."""

    @property
    def steps(self) -> tuple[int, ...]:
        """Time steps that the network is asked at, in the order of sampling."""
        ...

    def visits(
        self, model: nn.Module, noise: Tensor, *condition: Tensor
    ) -> Generator[tuple[Tensor, ...], None, Tensor]:
        """Yield what ``model`` is about to be called with, and return the images.

        The inputs are (noisy [B, ...], time steps [B] int64, conditions [B, ...]).
        """
        ...


class Draw(Protocol):
    """Makes what sampling starts from."""

    def __call__(self, count: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Noise [count, ...], and conditions [count, ...]."""
        ...


@dataclass(frozen=True)
class Noise:
    """Normal noise, and classes if there are some.

    Attributes
    ----------
    shape : tuple of int
        Of a latent.
    classes : int, optional
        Of which each image has one, drawn evenly.
    """

    shape: tuple[int, ...]
    classes: int | None = None

    def __call__(self, count: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Draw them."""
        noise = torch.randn(count, *self.shape, generator=generator)
        if self.classes is None:
            return (noise,)
        return noise, torch.randint(self.classes, (count,), generator=generator)


def course(
    sampler: Sampler, model: nn.Module, noise: Tensor, *condition: Tensor
) -> Iterator[tuple[Tensor, ...]]:
    """What a model meets while it draws; each of it is checked before the model is called.

    Parameters
    ----------
    sampler : Sampler
    model : nn.Module
    noise : [B, ...] tensor
    condition : [B, ...] tensors

    Raises
    ------
    ConfigError
        If conditions have not a row for each of the noise, a latent is not finite, or the sampler
        asks for other steps than it says.
    """
    for given in condition:
        if given.ndim < 1 or len(given) != len(noise):
            raise ConfigError(
                f"conditions must have a row for each of the {len(noise)} images, not be "
                f"{shapes_of(condition)}"
            )
    left = list(sampler.steps)
    for inputs in sampler.visits(model, noise, *condition):
        steps = sorted(set(inputs[1].tolist()))
        if steps != left[:1]:
            raise ConfigError(
                f"sampler must ask for the steps that it names, {list(sampler.steps)}, in their "
                f"order, not for {steps} where {left[:1]} is due"
            )
        if not bool(torch.isfinite(inputs[0]).all()):
            raise ConfigError(
                f"latents must be finite, not NaN or infinite, and at time step {steps[0]} they "
                "are not: look at the noise and at what the model gives"
            )
        left.pop(0)
        yield inputs
    if left:
        raise ConfigError(f"sampler must ask for the steps that it names, and leaves out {left}")
