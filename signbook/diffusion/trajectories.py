"""What a model meets while it samples, as data to learn from: no images are needed."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from signbook.diffusion.sampler import traits_of
from signbook.diffusion.schedulers import sampler_for
from vq.calibration.batches import device_of
from vq.errors import ConfigError

__all__ = ["Trajectories"]


class Trajectories:
    """Batches of ((noisy [B, C, H, W], step [B], label [B]),), one for every step of sampling.

    VQ4DiT (arXiv 2408.17131) distils on these: inputs that the full-precision model comes by while
    it makes images of noise. A pass is one trajectory: it draws new noise and classes from torch's
    global generator, then nothing more, so that training continues where it stopped. There are no
    targets. For a model without classes there are no labels.

    Parameters
    ----------
    teacher : nn.Module
        Whose trajectories these are: not the model that learns, but the one before compression.
        It says its ``shape`` and ``classes`` (:func:`signbook.diffusion.sampler.traits_of`).
    batch : int
        Rows of a batch. With guidance, the second half are the images of the first, without
        classes.
    steps, guidance
        As for :func:`signbook.diffusion.sampler.visits`.
    sampler : str, optional
        As :func:`signbook.diffusion.schedulers.sampler_for` has its name.

    Raises
    ------
    ConfigError
        If the batch is not positive, is odd with guidance, or the sampler refuses its settings.
    """

    def __init__(
        self,
        teacher: nn.Module,
        *,
        batch: int = 8,
        steps: int = 50,
        guidance: float | None = None,
        sampler: str | None = None,
    ) -> None:
        per_image = 1 if guidance is None else 2
        if batch < 1 or batch % per_image:
            kind = "positive" if guidance is None else "positive and even, for guidance"
            raise ConfigError(f"batch must be {kind}, not {batch}")
        self._teacher, self._traits = teacher, traits_of(teacher)
        self._images = batch // per_image
        self._sampler = sampler_for(teacher, sampler, steps, guidance=guidance)
        # What the sampler refuses, it refuses now.
        self._path(torch.zeros(self._images, *self._traits.shape), torch.zeros(self._images))

    def __len__(self) -> int:
        return len(self._sampler.steps)

    def __iter__(self) -> Iterator[tuple[tuple[Tensor, ...]]]:
        noise = torch.randn(self._images, *self._traits.shape)
        labels = torch.randint(self._traits.classes or 1, (self._images,))
        for inputs in self._path(noise, labels):
            yield (inputs,)

    def _path(self, noise: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, ...]]:
        device = device_of(self._teacher)
        told = () if self._traits.classes is None else (labels.to(device),)
        return self._sampler.visits(self._teacher, noise.to(device), *told)
