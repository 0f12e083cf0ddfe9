"""Images from noise by DDIM (Song et al., arXiv 2010.02502), with nothing random on the way."""

import math
from collections.abc import Generator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from signbook.zoo.ddpm import STEPS, signal_share
from vq.errors import ConfigError

__all__ = ["DDIM", "Traits", "end_of", "require_finite", "sample", "traits_of", "visits"]

#: Pixels lie between minus and plus this.
_REACH = 0.5


class Traits(NamedTuple):
    """What a model that predicts noise says of itself.

    Attributes
    ----------
    shape : (int, int, int)
        Of its images: channels, height, width.
    classes : int or None
        How many it knows; this number itself stands for none of them.
    """

    shape: tuple[int, int, int]
    classes: int | None


def traits_of(model: nn.Module) -> Traits:
    """Read the attributes ``shape`` and ``classes`` of a model.

    Raises
    ------
    ConfigError
        If it has none.
    """
    shape, classes = (getattr(model, name, None) for name in Traits._fields)
    if not (isinstance(shape, tuple) and len(shape) == 3):
        raise ConfigError(
            "model must predict noise and say the shape of its images, (channels, height, width), "
            f"as its attribute 'shape', not {shape!r}"
        )
    return Traits(shape, classes)


def visits(
    model: nn.Module,
    noise: Tensor,
    labels: Tensor | None = None,
    *,
    steps: int = 50,
    guidance: float | None = None,
) -> Generator[tuple[Tensor, ...], None, Tensor]:
    """Go from noise to images, and hand out what the model is given at every step.

    Parameters
    ----------
    model : nn.Module
        Called with (noisy [B, C, H, W], step [B]) and, with labels, label [B]; gives the noise.
    noise : [N, C, H, W] tensor
        Standard normal.
    labels : [N] int64 tensor, optional
        For a model that knows classes.
    steps : int
        How many of the 1000 are visited, evenly from the last to near the first.
    guidance : float, optional
        Move the prediction from that of no class to that of the class, and as many times as far.
        The model is then given every image twice, with its label and, after all of these, with
        that of no class. None asks for the class alone.

    Yields
    ------
    tuple of Tensor
        Inputs of the model, in order.

    Returns
    -------
    Tensor
        The images, in [-0.5, 0.5]; :func:`sample` gives these alone.

    Raises
    ------
    ConfigError
        If steps are none or more than there are, labels do not go with the noise or the model, or
        there is guidance without classes. On the way, if the model's noise is not finite.
    """
    traits = traits_of(model)
    _require_steps(steps)
    if noise.shape[1:] != traits.shape:
        raise ConfigError(
            f"noise must be [images, {', '.join(map(str, traits.shape))}] for this model, not "
            f"{list(noise.shape)}"
        )
    if (labels is None) != (traits.classes is None):
        known = "no classes" if traits.classes is None else f"{traits.classes} classes"
        given = "no labels" if labels is None else "labels"
        raise ConfigError(
            "labels must be given to a model that knows classes, and to no other; this one knows "
            f"{known}, and has {given}"
        )
    if labels is not None and labels.shape != noise.shape[:1]:
        raise ConfigError(f"labels must be [{len(noise)}], one an image, not {list(labels.shape)}")
    if labels is not None and traits.classes is not None:
        beyond = labels[(labels < 0) | (labels > traits.classes)].tolist()
        if beyond:
            raise ConfigError(
                f"labels must be 0 to {traits.classes}, the last for no class, not {beyond[0]}"
            )
    if guidance is not None and (labels is None or not math.isfinite(guidance)):
        cause = f"{guidance!r}" if labels is not None else "given to a model without classes"
        raise ConfigError(f"guidance must be a finite number, and have classes, not {cause}")
    free = None if guidance is None or labels is None else labels.new_tensor(traits.classes)
    return _visits(model, noise, labels, steps, guidance, free)


def _require_steps(steps: int) -> None:
    if not 1 <= steps <= STEPS:
        raise ConfigError(f"steps must be 1 to {STEPS}, as many as the schedule has, not {steps}")


@torch.no_grad()
def _visits(
    model: nn.Module,
    x: Tensor,
    labels: Tensor | None,
    steps: int,
    guidance: float | None,
    free: Tensor | None,
) -> Generator[tuple[Tensor, ...], None, Tensor]:
    if labels is not None and free is not None:
        labels = torch.cat([labels, free.expand(len(x))])
    places = _places(steps)
    share = [1.0, *signal_share().double()[places[1:]].tolist()]
    for i in range(steps, 0, -1):
        noisy = x if free is None else torch.cat([x, x])
        step = torch.full((len(noisy),), places[i], device=x.device)
        inputs = (noisy, step) if labels is None else (noisy, step, labels)
        yield inputs
        noise = model(*inputs)
        if guidance is not None:
            told, untold = noise.chunk(2)
            noise = untold + guidance * (told - untold)
        require_finite(noise, steps - i, steps, places[i])
        left, more = share[i], share[i - 1]
        clean = (x - math.sqrt(1 - left) * noise) / math.sqrt(left)
        clean = clean.clamp(-_REACH, _REACH)
        noise = (x - math.sqrt(left) * clean) / math.sqrt(1 - left)
        x = math.sqrt(more) * clean + math.sqrt(1 - more) * noise
    return x


def _places(steps: int) -> list[int]:
    """Steps of the schedule that are visited, from the image at 0 to pure noise.

    >>> _places(3)
    [0, 334, 667, 1000]
    """
    return [-(-STEPS * i // steps) for i in range(steps + 1)]


def require_finite(noise: Tensor, place: int, steps: int, step: int) -> None:
    """Require that a model's answer number ``place``, from 0, is of numbers.

    Raises
    ------
    ConfigError
    """
    if not torch.isfinite(noise).all():
        raise ConfigError(
            "noise that a model predicts must be finite, not NaN or infinite as at step "
            f"{place + 1} of {steps} (t = {step}); look at its weights, at the scales of its "
            "activations, and at what it starts from"
        )


def sample(
    model: nn.Module,
    noise: Tensor,
    labels: Tensor | None = None,
    *,
    steps: int = 50,
    guidance: float | None = None,
) -> Tensor:
    """Images [N, C, H, W] in [-0.5, 0.5] that a model makes of noise; see :func:`visits`."""
    return end_of(visits(model, noise, labels, steps=steps, guidance=guidance))


def end_of(path: Generator[tuple[Tensor, ...], None, Tensor]) -> Tensor:
    """What a path leads to, whatever is met on it."""
    while True:
        try:
            next(path)
        except StopIteration as end:
            images: Tensor = end.value
            return images


class DDIM:
    """:func:`visits` with its settings, as all samplers are asked.

    It needs no package. diffusers' scheduler of that name goes the same way
    (:mod:`signbook.diffusion.schedulers`), but only where the steps divide the schedule.

    Parameters
    ----------
    steps, guidance
        As :func:`visits` has them.

    Attributes
    ----------
    steps : tuple of int
        That the model is asked for, in their order.
    reach : float
        Pixels lie between minus and plus this.

    Raises
    ------
    ConfigError
        If there are no steps, or more than the schedule has.
    """

    reach = _REACH

    def __init__(self, steps: int = 50, *, guidance: float | None = None) -> None:
        _require_steps(steps)
        self.steps = tuple(_places(steps)[:0:-1])
        self._guidance = guidance

    def visits(
        self, model: nn.Module, noise: Tensor, *condition: Tensor
    ) -> Generator[tuple[Tensor, ...], None, Tensor]:
        """Go from noise to images; ``condition`` are labels, for a model that knows classes.

        Raises
        ------
        ConfigError
            If there is another condition, or :func:`visits` refuses something.
        """
        if len(condition) > 1:
            raise ConfigError(
                f"condition must be labels alone, or nothing, not {len(condition)} tensors"
            )
        return visits(model, noise, *condition, steps=len(self.steps), guidance=self._guidance)
