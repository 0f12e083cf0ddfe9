"""Learn which codeword each sub-vector takes: candidates compete, and the best one stays.

Every sub-vector starts as a convex combination of the ``n`` codewords nearest to it, weighed by the
softmax of logits that train beside the model. From time to time the candidate that weighs least
gives way to a better one (*replacement*). Sub-vectors whose best candidate weighs nearly all take
it for good (*confirmation*), natural or forced by a schedule, so that the undecided make up for
what the decided lost. What is undecided when the run ends takes its best candidate (*hardening*):
no soft model is left behind, and the weight is that of the file.

One engine for three methods of the field, none of which is published in full: VQ4DiT (arXiv
2408.17131: candidates, ratios from distances, confirmation at 0.99, the ratio term), ViM-VQ (arXiv
2503.09509: replacement, incremental confirmation), VQ4ALL (arXiv 2412.06875: a frozen codebook).
The schedule, the replacement and all numbers here are ours. With signs split, magnitudes compete.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vq import distributed
from vq.errors import ConfigError, bulleted
from vq.learning.rules.race import Race
from vq.learning.rules.rule import Rule, Run

__all__ = ["Candidates", "Competition"]


@dataclass(frozen=True)
class Candidates:
    """How codewords compete.

    Attributes
    ----------
    n : int
        Candidates of every sub-vector.
    original : nn.Module, optional
        The model before compression, in whose weights distances are measured. Without it they are
        measured from latent signs, which plain VQ has not.
    begin : "distance" or "uniform"
        Weigh candidates by inverse distance at first, or alike.
    rate : float
        Of the logits, by RMSprop, constant.
    threshold : float
        A sub-vector whose best candidate weighs more takes it; at 1 none does before the end.
    forced : (float, float) or None
        Shares of the run between which a share of the sub-vectors that grows from 0 to 1 is made
        to decide, the most decided ones first.
    finish : float
        A layer of which a larger share has decided decides altogether.
    interval_steps : int or None
        Steps between two confirmations. None: a hundredth of the run, at most 10.
    replace_steps : int or None
        Steps between two rounds of replacement; None keeps the first candidates.
    towards : "point" or "descent"
        What a newcomer must be nearest to: the combination as it is, or half of the distance to
        the farthest candidate further down the gradient.
    penalty : float
        Weight of the ratio term, the mean over sub-vectors of how undecided they are.
    term : "absolute" or "variance"
        ``sum(1 - |2 r - 1|)`` over candidates (VQ4DiT, equation 9), or ``n * mean(r * (1 - r))``.
    ratchet : bool
        Add the term only while it is above the least that it has been in this epoch.
    codebook_waits : bool
        Codebooks learn only once all layers that use them have decided.
    """

    n: int = 3
    original: nn.Module | None = field(default=None, repr=False, compare=False)
    begin: str = "distance"
    rate: float = 5e-2
    threshold: float = 0.99
    forced: tuple[float, float] | None = (0.5, 0.85)
    finish: float = 0.99
    interval_steps: int | None = None
    replace_steps: int | None = None
    towards: str = "point"
    penalty: float = 0.0
    term: str = "absolute"
    ratchet: bool = False
    codebook_waits: bool = False

    def __post_init__(self) -> None:
        problems = []
        if self.n < 1:
            problems.append(f"n must be positive, not {self.n!r}")
        if self.begin not in ("distance", "uniform"):
            problems.append(f"begin must be 'distance' or 'uniform', not {self.begin!r}")
        if not 0 < self.rate < math.inf:
            problems.append(f"rate must be positive, not {self.rate!r}")
        for name in ("threshold", "finish"):
            value = getattr(self, name)
            if not 0 < value <= 1:
                problems.append(f"{name} must be in (0, 1], not {value!r}")
        if self.forced is not None and not 0 <= self.forced[0] < self.forced[1] <= 1:
            problems.append(f"forced must be two shares of the run that rise, not {self.forced!r}")
        for name in ("interval_steps", "replace_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                problems.append(f"{name} must be positive, not {value!r}")
        if self.towards not in ("point", "descent"):
            problems.append(f"towards must be 'point' or 'descent', not {self.towards!r}")
        if not 0 <= self.penalty < math.inf:
            problems.append(f"penalty must be zero or positive, not {self.penalty!r}")
        if self.term not in ("absolute", "variance"):
            problems.append(f"term must be 'absolute' or 'variance', not {self.term!r}")
        if problems:
            raise ConfigError(bulleted("candidates", problems))

    def share_forced(self, progress: float) -> float:
        """Share of the sub-vectors that must have decided after a share of the run."""
        if self.forced is None:
            return 0.0
        first, last = self.forced
        return min(1.0, max(0.0, (progress - first) / (last - first)))

    def start(self, run: Run) -> "Competition":
        """Return the rule at work.

        Raises
        ------
        ConfigError
            If a layer has fewer codewords than candidates, plain VQ comes without the original, or
            that has other layers.
        """
        layers = [layer for layer in run.layers if layer.lookup is not None]
        weights = [self._original_of(layer.weight.geometry.name) for layer in layers]
        problems = []
        for layer, weight in zip(layers, weights, strict=True):
            g = layer.weight.geometry
            if self.n > g.k:
                problems.append(f"layer {g.name!r}: n must be at most its k = {g.k}, not {self.n}")
            if weight is not None and tuple(weight.shape) != g.shape:
                problems.append(
                    f"layer {g.name!r}: original must have its weight of {list(g.shape)}, not "
                    f"{list(weight.shape)}"
                )
            if weight is None and (self.original is not None or layer.latent is None):
                problems.append(
                    f"layer {g.name!r}: original must be the model before vq.compress_, with this "
                    f"layer, not {'another' if self.original is not None else 'left out'}"
                )
        if problems:
            raise ConfigError(bulleted("candidates", problems))
        races = [
            Race(layer, weight, self.n, uniform=self.begin == "uniform", rate=self.rate)
            for layer, weight in zip(layers, weights, strict=True)
        ]
        return Competition(races, run.total_steps, self)

    def _original_of(self, name: str) -> Tensor | None:
        """The weight of a layer before compression, if it is known.

        The original may be wrapped as the model is: of names that end alike, the shortest is meant.
        """
        modules = () if self.original is None else self.original.named_modules()
        found = [(path, module) for path, module in modules if f".{path}".endswith(f".{name}")]
        _, module = min(found, key=lambda one: len(one[0]), default=("", None))
        weight = getattr(module, "weight", None)
        return weight.detach() if isinstance(weight, Tensor) else None


class Competition(Rule):
    """Candidates of all codebook layers, during training.

    Parameters
    ----------
    races : sequence of Race
        One for each layer.
    total_steps : int
    schedule : Candidates
    """

    name = "candidates"

    def __init__(self, races: Sequence[Race], total_steps: int, schedule: Candidates) -> None:
        self._races = list(races)
        self._total, self._schedule = total_steps, schedule
        self._interval = schedule.interval_steps or max(1, min(10, total_steps // 100))
        self._step, self._least = 0, math.inf
        for race in self._races:
            race.begin()
        self._watch()

    def start_epoch(self) -> None:
        """Forget the least ratio term so far."""
        self._least = math.inf

    def before_step(self, step: int) -> None:
        """Complete the gradients of the logits; stop those of codebooks that wait."""
        running = [race for race in self._races if race.undecided]
        gradients = [gradient for race in running for gradient in race.gradients()]
        distributed.average_(gradients)
        if self._schedule.penalty and running:
            self._penalise(running)
        if self._schedule.codebook_waits:
            for race in running:
                race.hold_codebook()

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Let the logits step; replace and confirm where it is time."""
        self._step, schedule = step, self._schedule
        running = [race for race in self._races if race.undecided]
        for race in running:
            race.step()
        if self._replaces(step):
            for race in running:
                race.replace(along_descent=schedule.towards == "descent")
        if step % self._interval == 0:
            share = schedule.share_forced(step / self._total)
            for race in running:
                race.confirm(schedule.threshold, share, schedule.finish)
        self._watch()

    def telemetry(self) -> dict[str, float]:
        """Return shares of all sub-vectors, and how often a candidate was replaced."""
        count = sum(race.count for race in self._races)
        if not count:
            return {}
        return {
            "decided": 1 - sum(race.undecided for race in self._races) / count,
            "moved": sum(race.moved for race in self._races) / count,
            "replaced": sum(race.replaced for race in self._races),
        }

    def note(self) -> str:
        """Say how many have decided."""
        told = self.telemetry()
        return f"decided {told['decided']:.0%}  moved {told['moved']:.0%}" if told else ""

    def state_dict(self) -> dict[str, Any]:
        """Return candidates and logits of the undecided; the indices are the model's."""
        races = [race.state_dict() for race in self._races]
        return {"step": self._step, "least": self._least, "races": races}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state_dict` gave."""
        self._step, self._least = state["step"], state["least"]
        for race, own in zip(self._races, state["races"], strict=True):
            race.load_state_dict(own)
        self._watch()

    @torch.no_grad()
    def close(self) -> None:
        """Let all that are undecided take their best candidates."""
        for race in self._races:
            race.end()

    def _penalise(self, running: Iterable[Race]) -> None:
        """Add the gradient of the ratio term."""
        terms = [race.term(absolute=self._schedule.term == "absolute") for race in running]
        value = float(torch.stack([term.detach() for term in terms]).sum()) / len(self._races)
        if not self._schedule.ratchet or value > self._least:
            for race, term in zip(running, terms, strict=True):
                race.add_gradient(term * (self._schedule.penalty / len(self._races)))
        self._least = min(self._least, value)

    def _replaces(self, step: int) -> bool:
        every = self._schedule.replace_steps
        return every is not None and step % every == 0

    def _watch(self) -> None:
        """Keep the slopes of the next step if they will be asked for."""
        wanted = self._schedule.towards == "descent" and self._replaces(self._step + 1)
        for race in self._races:
            race.watch(wanted)
