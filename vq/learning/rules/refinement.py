"""Choose codewords again during training: our extension beyond SSVQ, which keeps its indices.

Every so often, each sub-vector compares its own codeword with the nearest other ones and moves if
one of them is clearly closer to the point that training has pushed it to. That point is

* for SSVQ, the magnitude of its latents (divided by alpha). Frozen latents carry no magnitude,
  so their coordinates do not count;
* for VQ, a copy of the decoded weight that learns beside the model, with the gradient that the
  weight gets and the rate of the latents. It costs the memory of one latent per weight, during
  training only.

Before the first step nothing would move: latents are the weights that clustering assigned, and
copies are the codewords themselves.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vq.errors import ConfigError
from vq.formats.model import CompressedLayer
from vq.formats.weights import FROZEN
from vq.layers import along_outputs
from vq.learning.rates import Rates
from vq.learning.rules.points import cut, real
from vq.learning.rules.rule import Rule, Run

__all__ = ["Refinement", "Refiner"]

#: Sub-vectors compared at a time; bounds the memory of one comparison.
_ROWS = 1 << 16


@dataclass(frozen=True)
class Refinement:
    """When and how readily sub-vectors change their codeword.

    Attributes
    ----------
    interval_steps : int
        Steps between two rounds.
    candidates : int
        Codewords considered: those nearest to the present one.
    margin : float
        Share by which the squared distance must fall. Above 0, points between two codewords do
        not swing to and fro.
    until : float
        Share of the run after which indices rest, so that codebooks and signs settle.
    """

    interval_steps: int = 100
    candidates: int = 8
    margin: float = 0.3
    until: float = 0.75

    def __post_init__(self) -> None:
        for name in ("interval_steps", "candidates"):
            value = getattr(self, name)
            if value < 1:
                raise ConfigError(f"refinement {name} must be positive, not {value!r}")
        if not 0 <= self.margin < 1:
            raise ConfigError(f"refinement margin must be in [0, 1), not {self.margin!r}")
        if not 0 < self.until <= 1:
            raise ConfigError(f"refinement until must be in (0, 1], not {self.until!r}")

    def start(self, run: Run) -> "Refiner":
        """Return the rule at work."""
        return Refiner(run.layers, run.total_steps, self, run.rates)


class Refiner(Rule):
    """Watches layers during training and re-assigns their sub-vectors.

    Parameters
    ----------
    layers : iterable of CompressedLayer
    total_steps : int
    schedule : Refinement
    rates : Rates
        ``signs``, the rate of the copies, and ``alpha``, by which latents are larger than weights.

    Attributes
    ----------
    reassigned : int
        Changes of an index so far.
    """

    name = "refinement"

    def __init__(
        self,
        layers: Iterable[CompressedLayer],
        total_steps: int,
        schedule: Refinement,
        rates: Rates,
    ) -> None:
        self.reassigned = 0
        self._schedule = schedule
        self._last = int(schedule.until * total_steps)
        self._rates = rates
        self._layers = [x for x in layers if x.lookup is not None and x.originals]
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        #: Weights of VQ layers as they would be without a codebook.
        self._copies = {id(x): self._watch(x) for x in self._layers if x.latent is None}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the copies of VQ layers' weights, which learn like latents."""
        return [{"params": list(self._copies.values()), "lr": self._rates.signs}]

    def close(self) -> None:
        """Stop watching the gradients."""
        for hook in self._hooks:
            hook.remove()

    def after_step(self, step: int) -> None:
        """Re-assign if a round is due."""
        if step % self._schedule.interval_steps == 0 and step <= self._last:
            self.reassigned += sum(self._refine(layer) for layer in self._layers)

    def telemetry(self) -> dict[str, float]:
        """Return how often an index changed so far."""
        return {"reassigned": self.reassigned}

    def state_dict(self) -> dict[str, Any]:
        """Return the copies and the count; the indices are the model's."""
        copies = [copy.detach() for copy in self._copies.values()]
        return {"reassigned": self.reassigned, "copies": copies}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state_dict` gave."""
        self.reassigned = state["reassigned"]
        for copy, own in zip(self._copies.values(), state["copies"], strict=True):
            copy.copy_(own)

    def _watch(self, layer: CompressedLayer) -> Tensor:
        weight = layer.module.weight
        assert isinstance(weight, Tensor)
        copy = nn.Parameter(weight.detach().float() / _unit(layer))

        def add(grad: Tensor) -> None:
            own = grad.detach().float()
            copy.grad = own.clone() if copy.grad is None else copy.grad.add_(own)

        def observe(module: nn.Module, inputs: Any, output: Tensor) -> None:
            if output.requires_grad:
                output.register_hook(add)  # type: ignore[no-untyped-call]

        self._hooks.append(layer.weight.register_forward_hook(observe))
        return copy

    @torch.no_grad()
    def _refine(self, layer: CompressedLayer) -> int:
        schedule, weight = self._schedule, layer.lookup
        assert weight is not None
        points, counts = self._points(layer)
        codebook = weight.codewords(layer.codebook)
        near = torch.cdist(codebook, codebook).argsort(dim=1, stable=True)
        near = near[:, : schedule.candidates + 1]
        changed = 0
        for start in range(0, len(points), _ROWS):
            rows = slice(start, start + _ROWS)
            own = weight.indices[rows].long()
            offered = torch.cat([own[:, None], near[own]], dim=1)  # [rows, 1 + candidates + 1]
            gap = (points[rows, None] - codebook[offered]).square()
            distance = (gap * counts[rows, None]).sum(dim=2)
            best, at = distance.min(dim=1)
            moves = best < (1 - schedule.margin) * distance[:, 0]
            new = torch.where(moves, offered.gather(1, at[:, None])[:, 0], own)
            weight.indices[rows] = new.to(weight.indices.dtype)
            changed += int((new != own).sum())
        return changed

    def _points(self, layer: CompressedLayer) -> tuple[Tensor, Tensor]:
        """Where training wants the sub-vectors, and which coordinates count; both [N, d]."""
        counts = real(layer)
        if layer.latent is None:
            points = cut(self._copies[id(layer)], layer)
            return points, counts.expand_as(points)
        free = layer.latent.abs() < FROZEN
        points = torch.where(free, layer.latent.abs() / self._rates.alpha, 0)
        return points, free * counts


def _unit(layer: CompressedLayer) -> Tensor:
    """What one unit of the codebook is in the decoded weight, shaped to divide it."""
    weight = layer.lookup
    assert weight is not None
    g = weight.geometry
    unit = weight.units() if g.scales else 1 / weight.step(layer.codebook)
    return along_outputs(unit, g.op, len(g.shape))
