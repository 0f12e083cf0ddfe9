"""What a model meets while it samples, by name, as commands take data."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from signbook.diffusion.trajectories import Trajectories
from signbook.naming import resolve_model
from signbook.tasks import Denoising

__all__ = ["trajectories"]


def trajectories(
    *,
    model: str,
    weights: str | None = None,
    batch: int = 8,
    steps: int = 50,
    guidance: float | None = None,
) -> Denoising:
    """A model's own sampling, and the noise that it finds at every step: no images are needed.

    Every pass is another trajectory, drawn from torch's global generator.

    Parameters
    ----------
    model, weights : str
        As commands take them: the model before compression.
    batch, steps, guidance
        As :class:`signbook.diffusion.Trajectories` has them.
    """
    teacher = resolve_model(model, weights)
    met = Trajectories(teacher, batch=batch, steps=steps, guidance=guidance)
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
