"""What a model draws, and what it meets on the way, by name, as commands take data."""

from collections.abc import Generator, Iterator

import torch
from torch import Tensor, nn

from signbook.data.pictures import load_pictures
from signbook.diffusion.sampler import end_of
from signbook.diffusion.schedulers import sampler_for
from signbook.diffusion.trained import digits_judge, mnist_judge
from signbook.diffusion.trajectories import Trajectories
from signbook.naming import resolve_model
from signbook.tasks import Denoising, Generation
from signbook.zoo.judge import FEATURES
from vq.errors import ConfigError

__all__ = ["generation", "trajectories"]


def generation(
    *,
    pictures: str,
    count: int = 500,
    batch: int = 100,
    steps: int = 50,
    guidance: float | None = None,
    sampler: str | None = None,
    labels: bool = True,
    seed: int = 0,
) -> Generation:
    """Images from noise, judged beside real ones; every model is given equal noise and classes.

    Parameters
    ----------
    pictures : "digits" or "mnist"
        What the model draws. Its test images are the real ones, and the judge is the classifier
        of them that :func:`signbook.diffusion.trained` keeps.
    count, batch : int
        Images in all, and at a time.
    steps, guidance
        As :func:`signbook.diffusion.sample` has them.
    sampler : str, optional
        As :func:`signbook.diffusion.schedulers.sampler_for` has its name: DDIM, where nothing else
        is said.
    labels : bool
        Ask for one class after another; false for a model that knows none.
    seed : int
        Of the noise.

    Raises
    ------
    ConfigError
        If there are no such pictures, or the images are too few for a covariance.
    """
    images = load_pictures(pictures, "test")
    if count <= FEATURES:
        raise ConfigError(
            f"count must be more than {FEATURES}, the features that images are judged by, "
            f"not {count}"
        )
    judge = {"digits": digits_judge, "mnist": mnist_judge}[pictures]()
    noise = torch.randn(count, *images.x.shape[1:], generator=torch.Generator().manual_seed(seed))
    told = (torch.arange(count) % judge.head.out_features,) if labels else ()
    parts = [part.split(batch) for part in (noise, *told)]

    def visits(model: nn.Module, *start: Tensor) -> Generator[tuple[Tensor, ...], None, Tensor]:
        way = sampler_for(model, sampler, steps, guidance=guidance)
        images = yield from way.visits(model, *start)
        return images / (2 * way.reach) + 0.5

    def drawn(model: nn.Module, *start: Tensor) -> Tensor:
        return end_of(visits(model, *start))

    batches, real = list(zip(*parts, strict=True)), images.x.float() / 255
    return Generation(batches, drawn, judge.seen, real, visits=visits)


def trajectories(
    *,
    model: str,
    weights: str | None = None,
    batch: int = 8,
    steps: int = 50,
    guidance: float | None = None,
    sampler: str | None = None,
) -> Denoising:
    """A model's own sampling, and the noise that it finds at every step: no images are needed.

    Every pass is another trajectory, drawn from torch's global generator.

    Parameters
    ----------
    model, weights : str
        As commands take them: the model before compression.
    batch, steps, guidance, sampler
        As :class:`signbook.diffusion.Trajectories` has them.
    """
    teacher = resolve_model(model, weights)
    met = Trajectories(teacher, batch=batch, steps=steps, guidance=guidance, sampler=sampler)
    return Denoising(_Answered(met, teacher))


class _Answered:
    """Batches of (inputs, noise), as a model answers them."""

    def __init__(self, met: Trajectories, model: nn.Module) -> None:
        self._met, self._model = met, model

    def __len__(self) -> int:
        return len(self._met)

    def __iter__(self) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        for (inputs,) in self._met:
            with torch.no_grad():
                noise = self._model(*inputs)
            yield inputs, noise
