"""Samplers made of diffusers' schedulers (extra ``diffusion``): DDIM, DPM-Solver++ and Euler.

All go from noise to images with nothing random on the way, and ask a model as
:class:`signbook.diffusion.DDIM` does: ``model(x, t, *condition)`` gives the noise in ``x``, whose
variance is that of the image and of the noise in their shares, so that Euler's larger ``x`` is
scaled before.
"""

import copy
import warnings
from collections.abc import Generator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from signbook.diffusion.sampler import DDIM, require_finite
from signbook.extras import require
from signbook.hints import did_you_mean
from signbook.zoo.ddpm import STEPS, signal_share
from vq.errors import ConfigError

__all__ = ["SCHEDULERS", "Scheduled", "sampler_for", "zoo_sampler"]

#: Names of the schedulers that add no noise, and diffusers' classes.
SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
}


class Scheduled:
    """A sampler that goes by a scheduler of diffusers.

    Parameters
    ----------
    scheduler : scheduler of diffusers
        One of :data:`SCHEDULERS`; it is copied. Of what its ``prediction_type`` says, the model
        has made noise (:class:`signbook.diffusion.networks.Network` does).
    steps : int or sequence of int
        How many, placed by the scheduler's own settings, or, but for DDIM, which.
    guidance : float, optional
        As :func:`signbook.diffusion.visits` has it.
    untold : tensor, optional
        What stands for no condition in one image, for guidance. By default the number
        ``model.classes``.
    reach : float, optional
        Pixels lie between minus and plus this; by default what the scheduler clips at, else 1.
    implied : bool
        DDIM goes on with the noise that its clipped pixels imply, not with the predicted one, as
        our own does and diffusers' pipelines do not.

    Attributes
    ----------
    steps : tuple of int
        That the model is asked for, in their order.
    reach : float

    Raises
    ------
    ConfigError
        If the scheduler is another, adds noise, leaves nothing of the image, asks for what is no
        step of its training or for one twice, or guidance is not finite.
    """

    def __init__(
        self,
        scheduler: Any,
        steps: int | Sequence[int] = 50,
        *,
        guidance: float | None = None,
        untold: Tensor | None = None,
        reach: float | None = None,
        implied: bool = False,
    ) -> None:
        self._scheduler, self.steps = _set(scheduler, steps)
        if guidance is not None and not np.isfinite(guidance):
            raise ConfigError(f"guidance must be a finite number, not {guidance!r}")
        self._guidance, self._untold = guidance, untold
        self.reach = reach or float(self._scheduler.config.get("clip_sample_range") or 1)
        ddim = _kind(scheduler) == "ddim"
        self._more = {"use_clipped_model_output": True} if ddim and implied else {}

    def visits(
        self, model: nn.Module, noise: Tensor, *condition: Tensor
    ) -> Generator[tuple[Tensor, ...], None, Tensor]:
        """Go from noise to images, and hand out what the model is given at every step.

        Parameters
        ----------
        model : nn.Module
            Called with (noisy [B, C, H, W], step [B] int64, \\*condition); gives the noise. If it
            says its ``shape``, the noise must be of it.
        noise : [N, C, H, W] tensor
            Standard normal.
        *condition : [N, ...] tensors
            With guidance, exactly one.

        Yields
        ------
        tuple of Tensor
            Inputs of the model, in order; with guidance twice N rows, the second half untold.

        Returns
        -------
        Tensor
            The images.

        Raises
        ------
        ConfigError
            If noise and conditions do not fit each other or the model, or guidance has no
            condition. On the way, if the model's noise is not finite.
        """
        shape = getattr(model, "shape", None)
        if noise.ndim != 4 or (shape is not None and noise.shape[1:] != tuple(shape)):
            wanted = "channels, height, width" if shape is None else ", ".join(map(str, shape))
            raise ConfigError(
                f"noise must be [images, {wanted}] for this model, not {list(noise.shape)}"
            )
        for given in condition:
            if given.shape[:1] != noise.shape[:1]:
                raise ConfigError(
                    f"condition must have a row for each of {len(noise)} images, not be "
                    f"{list(given.shape)}"
                )
        if self._guidance is not None:
            condition = (self._with_untold(model, condition),)
        return self._visits(model, noise, condition)

    @torch.no_grad()
    def _visits(
        self, model: nn.Module, x: Tensor, condition: tuple[Tensor, ...]
    ) -> Generator[tuple[Tensor, ...], None, Tensor]:
        scheduler, guidance = copy.deepcopy(self._scheduler), self._guidance
        x = x * scheduler.init_noise_sigma
        for i, (step, time) in enumerate(zip(self.steps, scheduler.timesteps, strict=True)):
            noisy = scheduler.scale_model_input(x, time)
            if guidance is not None:
                noisy = torch.cat([noisy, noisy])
            inputs = (noisy, torch.full((len(noisy),), step, device=x.device), *condition)
            yield inputs
            noise = model(*inputs)
            if guidance is not None:
                told, untold = noise.chunk(2)
                noise = untold + guidance * (told - untold)
            require_finite(noise, i, len(self.steps), step)
            x = scheduler.step(noise, time, x, **self._more).prev_sample
        return x

    def _with_untold(self, model: nn.Module, condition: tuple[Tensor, ...]) -> Tensor:
        """The one condition [2 N, ...], and behind it what stands for none."""
        if len(condition) != 1:
            raise ConfigError(f"guidance must have one condition, not {len(condition)}")
        (told,) = condition
        classes = getattr(model, "classes", None)
        if self._untold is None and (classes is None or told.ndim != 1):
            raise ConfigError(
                "guidance must have what stands for no condition, not a model that says no "
                "number of classes; give it as untold"
            )
        none = told.new_tensor(classes) if self._untold is None else self._untold.to(told)
        if none.shape != told.shape[1:]:
            raise ConfigError(
                f"untold must be {list(told.shape[1:])}, a condition of one image, not "
                f"{list(none.shape)}"
            )
        return torch.cat([told, none.expand_as(told)])


def zoo_sampler(
    name: str, steps: int = 50, *, guidance: float | None = None, untold: Tensor | None = None
) -> Scheduled:
    """diffusers' scheduler for the networks of the zoo: their schedule, their pixels, their steps.

    The table of betas has a 0 before it, so that the scheduler's step is the network's, from 1 to
    1000, and 0 the image.

    Parameters
    ----------
    name : str
        One of :data:`SCHEDULERS`.
    steps, guidance, untold
        As for :class:`Scheduled`. Steps lie where those of :class:`signbook.diffusion.DDIM` lie.

    Raises
    ------
    ConfigError
        If there is no such name, diffusers is not installed, there are no steps or too many, or,
        for "ddim", they do not divide 1000.
    """
    _require_name(name)
    places = DDIM(steps).steps
    share = torch.cat([torch.ones(1), signal_share()[1:]]).double()
    betas = torch.cat([torch.zeros(1).double(), 1 - share[1:] / share[:-1]])
    settings: dict[str, Any] = {"num_train_timesteps": STEPS + 1, "trained_betas": betas.tolist()}
    if name == "ddim":
        if STEPS % steps:
            raise ConfigError(
                f"steps must divide {STEPS} for diffusers' DDIM, whose strides are all equal, not "
                f"{steps}; signbook.diffusion.DDIM takes any number"
            )
        settings |= {"clip_sample_range": DDIM.reach, "steps_offset": STEPS // steps}
    scheduler = _class(SCHEDULERS[name])(**settings)
    return Scheduled(
        scheduler,
        steps if name == "ddim" else places,
        guidance=guidance,
        untold=untold,
        reach=DDIM.reach,
        implied=True,
    )


def sampler_for(
    model: nn.Module,
    name: str | None = None,
    steps: int = 50,
    *,
    guidance: float | None = None,
    untold: Tensor | None = None,
) -> DDIM | Scheduled:
    """The sampler that a model is to be asked by.

    Parameters
    ----------
    model : nn.Module
        A network of diffusers (:class:`signbook.diffusion.networks.Network`), which brings its
        schedule, or one of the zoo.
    name : str, optional
        One of :data:`SCHEDULERS`. Without one, the network's own of diffusers, and DDIM for those
        of the zoo. The zoo's DDIM needs no package, and takes any number of steps.
    steps, guidance, untold
        As for :class:`Scheduled`.

    Raises
    ------
    ConfigError
        If there is no such name, diffusers is not installed, a network of diffusers lacks its
        schedule, or the sampler refuses its settings.
    """
    if name is not None:
        _require_name(name)
    if not hasattr(model, "scheduler"):
        if name in (None, "ddim") and untold is None:
            return DDIM(steps, guidance=guidance)
        return zoo_sampler(name or "ddim", steps, guidance=guidance, untold=untold)
    scheduler: Any = model.scheduler
    if scheduler is None:
        raise ConfigError(
            "network must come with its schedule, not alone; name the folder of the whole "
            "pipeline, which has a folder scheduler beside the network's"
        )
    if name is not None:
        scheduler = _class(SCHEDULERS[name]).from_config(scheduler.config)
    return Scheduled(scheduler, steps, guidance=guidance, untold=untold)


def _require_name(name: str) -> None:
    if name not in SCHEDULERS:
        raise ConfigError(
            f"sampler must be one of {', '.join(SCHEDULERS)}, not {name!r}"
            f"{did_you_mean(name, list(SCHEDULERS))}"
        )


def _class(name: str) -> Any:
    return getattr(require("diffusers", extra="diffusion", purpose="sampling by diffusers"), name)


def _kind(scheduler: Any) -> str | None:
    """Name of a scheduler, if it is known."""
    known = {theirs: ours for ours, theirs in SCHEDULERS.items()}
    return known.get(type(scheduler).__name__)


def _set(scheduler: Any, steps: int | Sequence[int]) -> tuple[Any, tuple[int, ...]]:
    """A copy of a scheduler that is set to steps and predicts from noise, and these steps."""
    given = type(scheduler).__name__
    kind = _kind(scheduler)
    if kind is None:
        raise ConfigError(
            f"scheduler must be one of {', '.join(SCHEDULERS.values())}, which add no noise on the "
            f"way, not {given}; the names {', '.join(SCHEDULERS)} take its schedule"
        )
    algorithm = scheduler.config.get("algorithm_type")
    if kind == "dpm++" and algorithm != "dpmsolver++":
        raise ConfigError(
            f"algorithm_type of {given} must be 'dpmsolver++', which adds no noise on the way, not "
            f"{algorithm!r}"
        )
    if scheduler.config.get("rescale_betas_zero_snr"):
        raise ConfigError(
            f"{given} must leave something of the image at its last step, so that noise can be "
            "predicted, not rescale_betas_zero_snr"
        )
    scheduler = type(scheduler).from_config(
        scheduler.config,
        prediction_type="epsilon",
        **({"variance_type": None} if kind == "dpm++" else {}),  # the network cuts it off
    )
    whole = isinstance(steps, int)
    if kind == "ddim" and not whole:
        raise ConfigError("steps of diffusers' DDIM must be a number, not a list")
    most = scheduler.config.num_train_timesteps
    if isinstance(steps, int) and not 1 <= steps <= most:
        raise ConfigError(f"steps must be 1 to {most}, as many as {given} has, not {steps}")
    with warnings.catch_warnings(), np.errstate(divide="ignore"):  # no noise is in the image
        warnings.simplefilter("ignore", DeprecationWarning)  # of numpy, about its arrays of torch's
        scheduler.set_timesteps(
            **({"num_inference_steps": steps} if whole else {"timesteps": steps})
        )
    times = scheduler.timesteps.tolist()
    if broken := [time for time in times if time != int(time)]:
        raise ConfigError(
            f"steps of {given} must be whole, not such as {broken[0]:g}; "
            "set timestep_spacing to 'leading' or 'trailing', and no use_karras_sigmas"
        )
    found = tuple(map(int, times))
    descends = all(a > b for a, b in pairwise(found))
    if not descends or not found or not 0 <= found[-1] <= found[0] < most:
        raise ConfigError(
            f"steps of {given} must go down from at most {most - 1}, each asked for once, not be "
            f"{_listed(found)}; take fewer, or another timestep_spacing"
        )
    return scheduler, found


def _listed(values: Sequence[int]) -> str:
    shown = ", ".join(map(str, values[:6]))
    return shown + (", …" if len(values) > 6 else "")
