"""Iterative freezing of oscillating signs, by vote with a falling threshold.

A sign that keeps flipping does not learn. The worst oscillators are frozen first, to the sign
they had most often, and calmer ones later (SSVQ, arXiv 2503.08668, after the oscillation freezing
of arXiv 2203.11086). The paper's constants are not published in full; those here are ours.

What a sign "had most often" can be told in three ways. Counting over the window since the last
freezing event follows recent training, and is the default; counting over the whole run is steadier
but remembers signs that the network has long left; a moving average of the sign is what the
older method does, and itself swings with an oscillating sign.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from vq.distributed import local
from vq.errors import ConfigError
from vq.formats.model import CompressedLayer
from vq.formats.weights import FROZEN
from vq.learning.rules.rule import Rule, Run

__all__ = ["Freezer", "Freezing", "SignFreezer", "SignTelemetry", "Track", "Watching"]


@dataclass(frozen=True)
class Freezing:
    """Schedule of the freezing.

    Attributes
    ----------
    interval_steps : int or None
        Steps between two freezing events, and the window of the vote. None: a twelfth of the
        run, at most 500 (the paper's best at its much longer runs).
    momentum : float
        Weight of the newest step in the moving average of the oscillation indicator.
    threshold_start, threshold_end : float
        Oscillation frequency above which a sign freezes; falls along a cosine.
    warmup : float
        Share of the run before the first event: early averages swing too much.
    vote : "majority" or "ema"
        How a sign is chosen: counted, or by a moving average with the same ``momentum``. A tie
        keeps the present sign.
    counters : "window" or "run"
        What a majority counts: the steps since the last event (even one before the warmup
        ended), or all steps so far.
    """

    interval_steps: int | None = None
    momentum: float = 0.02
    threshold_start: float = 0.1
    threshold_end: float = 0.02
    warmup: float = 0.25
    vote: str = "majority"
    counters: str = "window"

    def __post_init__(self) -> None:
        if self.interval_steps is not None and self.interval_steps < 1:
            raise ConfigError(f"interval_steps must be positive, not {self.interval_steps!r}")
        if not 0 < self.momentum <= 1:
            raise ConfigError(f"momentum must be in (0, 1], not {self.momentum!r}")
        if not 0 <= self.threshold_end <= self.threshold_start:
            raise ConfigError(
                "thresholds must fall from threshold_start to threshold_end >= 0, not from "
                f"{self.threshold_start!r} to {self.threshold_end!r}"
            )
        if not 0 <= self.warmup < 1:
            raise ConfigError(f"warmup must be in [0, 1), not {self.warmup!r}")
        if self.vote not in ("majority", "ema"):
            raise ConfigError(f"vote must be 'majority' or 'ema', not {self.vote!r}")
        if self.counters not in ("window", "run"):
            raise ConfigError(f"counters must be 'window' or 'run', not {self.counters!r}")

    def interval(self, total_steps: int) -> int:
        """Steps between events in a run of ``total_steps``."""
        return self.interval_steps or max(1, min(500, total_steps // 12))

    def threshold(self, step: int, total_steps: int) -> float:
        """Threshold after ``step`` of ``total_steps`` steps."""
        first = self.warmup * total_steps
        phase = min(1.0, (step - first) / max(1.0, total_steps - first))
        span = self.threshold_start - self.threshold_end
        return self.threshold_end + 0.5 * span * (1 + math.cos(math.pi * phase))

    def start(self, run: Run) -> "SignFreezer":
        """Return the rule at work."""
        return SignFreezer(run.layers, run.total_steps, self)


@dataclass(frozen=True)
class Watching:
    """Tell how the signs move, and never freeze one."""

    def start(self, run: Run) -> "SignFreezer":
        """Return the rule at work."""
        return SignFreezer(run.layers, run.total_steps, None)


@dataclass(frozen=True)
class SignTelemetry:
    """State of all signs together, as shares of their number.

    Attributes
    ----------
    flipped_now : float
        Flipped in the last step.
    oscillating : float
        Not frozen, and going back and forth more often than the final threshold allows.
    frozen : float
    changed : float
        Differ from where they started.
    flip_rate : float
        Flipped per step, on average since :meth:`SignFreezer.start_epoch`.
    """

    flipped_now: float
    oscillating: float
    frozen: float
    changed: float
    flip_rate: float = 0.0


class Track(Protocol):
    """History of what may oscillate in one layer; all tensors but the two counts are alike."""

    frequency: Tensor
    votes: Tensor
    flips: Tensor
    all_flips: Tensor

    @property
    def frozen(self) -> Tensor:
        """Which ones no step moves any more."""
        ...

    @property
    def changed(self) -> Tensor:
        """Which ones differ from where they started."""
        ...

    def observe(self, momentum: float) -> None:
        """Take note of where they are after a step."""

    def freeze(self, threshold: float, counted: int) -> None:
        """Freeze those that go back and forth more often than that.

        To where most of the ``counted`` last steps had them.
        """

    def tensors(self) -> dict[str, Tensor]:
        """All that it knows, by the names of its attributes."""
        ...


@dataclass
class _Signs:
    """History of one layer's signs; all tensors are [N, d] but the two counts of flips []."""

    parameter: Tensor
    start: Tensor = field(init=False)
    positive: Tensor = field(init=False)
    has_flipped: Tensor = field(init=False)
    frequency: Tensor = field(init=False)
    votes: Tensor = field(init=False)
    average: Tensor | None = field(init=False)
    flips: Tensor = field(init=False)
    all_flips: Tensor = field(init=False)
    by_average: bool

    def __post_init__(self) -> None:
        self.start = self.positive = ~torch.signbit(self.latent)
        self.has_flipped = torch.zeros_like(self.positive)
        self.frequency = torch.zeros_like(self.latent)
        self.votes = torch.zeros_like(self.latent, dtype=torch.int32)
        self.average = self.positive.to(self.latent.dtype) if self.by_average else None
        self.flips = torch.zeros((), dtype=torch.int64, device=self.latent.device)
        self.all_flips = torch.zeros_like(self.flips)

    @property
    def latent(self) -> Tensor:
        # Signs do not depend on each other, so a process can see to its own shard alone.
        return local(self.parameter.detach())

    @property
    def frozen(self) -> Tensor:
        return self.latent.abs() >= FROZEN

    @property
    def changed(self) -> Tensor:
        return self.positive ^ self.start

    def observe(self, momentum: float) -> None:
        positive = ~torch.signbit(self.latent)
        flip = positive ^ self.positive
        # A sign has two states, so every flip after the first goes back: it is an oscillation.
        oscillation = (flip & self.has_flipped).to(self.frequency.dtype)
        self.frequency.lerp_(oscillation, momentum)
        self.has_flipped |= flip
        self.votes += positive
        if self.average is not None:
            self.average.lerp_(positive.to(self.average.dtype), momentum)
        self.positive = positive
        self.flips = flip.sum()
        self.all_flips += self.flips

    def freeze(self, threshold: float, counted: int) -> None:
        new = (self.frequency > threshold) & ~self.frozen
        share, half = (2 * self.votes, counted) if self.average is None else (self.average, 0.5)
        won = torch.where(share == half, self.positive, share > half)
        target = torch.where(won, FROZEN, -FROZEN).to(self.latent.dtype)
        self.latent.copy_(torch.where(new, target, self.latent))
        self.positive = ~torch.signbit(self.latent)

    def tensors(self) -> dict[str, Tensor]:
        own = vars(self).items()
        return {n: t.detach() for n, t in own if n != "parameter" and isinstance(t, Tensor)}


class Freezer(Rule):
    """Watches what has few values during training, and freezes what oscillates between them.

    Parameters
    ----------
    tracks : sequence of Track
    total_steps : int
        Optimiser steps of the run.
    schedule : Freezing or None
        None watches without ever freezing.
    """

    def __init__(
        self, tracks: Sequence[Track], total_steps: int, schedule: Freezing | None
    ) -> None:
        self._tracks = tracks
        self._total = total_steps
        self._schedule = schedule
        self._momentum = (schedule or Freezing()).momentum
        self._interval = (schedule or Freezing()).interval(total_steps)
        self._step = self._counted = self._marked = 0

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Take note of where all are; freeze when the schedule says so."""
        self._step = step
        self._counted += 1
        for track in self._tracks:
            track.observe(self._momentum)
        schedule = self._schedule
        if schedule is None or self._step % self._interval:
            return
        if self._step >= schedule.warmup * self._total:
            threshold = schedule.threshold(self._step, self._total)
            for track in self._tracks:
                track.freeze(threshold, self._counted)
        if schedule.counters == "window":
            for track in self._tracks:
                track.votes.zero_()
            self._counted = 0

    def start_epoch(self) -> None:
        """Count the flip rate from here."""
        self._marked = self._step
        for track in self._tracks:
            track.all_flips.zero_()

    def state_dict(self) -> dict[str, Any]:
        """Return the history; what it is of is the model's."""
        counts = {"step": self._step, "counted": self._counted, "marked": self._marked}
        return {**counts, "tracks": [track.tensors() for track in self._tracks]}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state_dict` gave."""
        self._step, self._counted, self._marked = (
            state[name] for name in ("step", "counted", "marked")
        )
        for track, own in zip(self._tracks, state["tracks"], strict=True):
            for name, value in own.items():
                setattr(track, name, value.to(track.frequency.device, copy=True))

    def telemetry(self) -> dict[str, float]:
        """Return what :meth:`measure` finds; empty if there is nothing to watch."""
        found = self.measure()
        return {} if found is None else asdict(found)

    def note(self) -> str:
        """Say how they are."""
        found = self.measure()
        if found is None:
            return ""
        return (
            f"flips {found.flip_rate:.2%}  oscillating {found.oscillating:.1%}"
            f"  frozen {found.frozen:.1%}  changed {found.changed:.1%}"
        )

    @torch.no_grad()
    def measure(self) -> SignTelemetry | None:
        """Measure them now; None if there are none."""
        total = sum(t.frequency.numel() for t in self._tracks)
        if not total:
            return None
        end = (self._schedule or Freezing()).threshold_end

        def share(values: list[Tensor]) -> float:
            return float(torch.stack([v.double() for v in values]).sum()) / total

        return SignTelemetry(
            flipped_now=share([t.flips for t in self._tracks]),
            oscillating=share([((t.frequency > end) & ~t.frozen).sum() for t in self._tracks]),
            frozen=share([t.frozen.sum() for t in self._tracks]),
            changed=share([t.changed.sum() for t in self._tracks]),
            flip_rate=share([t.all_flips for t in self._tracks])
            / max(1, self._step - self._marked),
        )


class SignFreezer(Freezer):
    """Watches the signs of SSVQ layers during training and freezes the oscillating ones.

    Of latents that are sharded over processes, each process watches, freezes and reports its own.

    Parameters
    ----------
    layers : iterable of CompressedLayer
        Those without signs are ignored.
    total_steps, schedule
        As for :class:`Freezer`.
    """

    name = "signs"

    def __init__(
        self, layers: Iterable[CompressedLayer], total_steps: int, schedule: Freezing | None
    ) -> None:
        by_average = schedule is not None and schedule.vote == "ema"
        latents = [layer.latent for layer in layers if layer.latent is not None]
        tracks = [_Signs(latent, by_average) for latent in latents]
        super().__init__(tracks, total_steps, schedule)
