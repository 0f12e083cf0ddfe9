"""The candidates of one layer's sub-vectors, on their way to one codeword each."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from vq.formats.mixture import Mixture
from vq.formats.model import CompressedLayer
from vq.formats.weights import FROZEN
from vq.learning.rules.points import cut, real

__all__ = ["Race"]

#: Sub-vectors compared with all codewords at a time; bounds the memory of one comparison.
_ROWS = 1 << 14
#: Added to distances, in units: ratios stay finite where a sub-vector is a codeword.
_LEAST_DISTANCE = 1e-5
#: Of the mean of squared gradients.
_MEMORY = 0.9
#: What a candidate weighs that has just come, and what the others weigh at least.
_NEWCOMER, _LEAST_RATIO = 0.05, 1e-12
#: How far down the gradient it is looked for, in distances to the candidate that goes.
_DESCENT = 0.5


class Race:
    """Candidates, logits and their optimiser, for one layer.

    Parameters
    ----------
    layer : CompressedLayer
        With a codebook.
    original : Tensor, optional
        The weight before compression. Without it, distances are those of the latents.
    n : int
        Candidates.
    uniform : bool
        Weigh them alike at first, and not by inverse distance.
    rate : float
        Of the logits.

    Attributes
    ----------
    count : int
        Sub-vectors.
    moved : int
        Of those that have decided, how many for another codeword than they had.
    replaced : int
        Candidates that gave way to others.
    """

    def __init__(
        self, layer: CompressedLayer, original: Tensor | None, n: int, *, uniform: bool, rate: float
    ) -> None:
        weight = layer.lookup
        assert weight is not None
        self._layer, self._weight, self._rate = layer, weight, rate
        self.count = len(weight.indices)
        self.moved = self.replaced = 0
        self._real = real(layer)
        self._mixture: Mixture | None = None
        self._optimizer: torch.optim.RMSprop | None = None
        self._watching = False
        self._slope: Tensor | None = None
        self._hook: torch.utils.hooks.RemovableHandle | None = None
        distances, candidates = self._nearest(*self._points(original), n)
        logits = torch.zeros_like(distances)
        if not uniform:
            distances = distances.sqrt() + _LEAST_DISTANCE
            logits = (distances[:, -1:] / distances).log()
        rows = torch.arange(self.count, device=candidates.device)
        self._start = Mixture(rows, candidates.to(torch.int32), logits)

    @property
    def undecided(self) -> int:
        """How many sub-vectors have not decided."""
        return 0 if self._mixture is None else len(self._mixture.rows)

    def begin(self) -> None:
        """Put the candidates in the place of the indices; one alone has won."""
        self._hook = self._weight.register_forward_hook(self._observe)
        self._set(self._start)
        if self._start.logits.shape[1] == 1:
            self._decide(torch.ones_like(self._start.rows, dtype=torch.bool))

    def end(self) -> None:
        """Harden, and watch the layer no longer."""
        if self._mixture is not None:
            self._decide(torch.ones_like(self._mixture.rows, dtype=torch.bool))
        if self._hook is not None:
            self._hook.remove()

    def watch(self, wanted: bool) -> None:
        """Keep the weight's gradient of the next step, or do not."""
        self._watching, self._slope = wanted, None

    def gradients(self) -> list[Tensor]:
        """What every process has its own part of."""
        own = None if self._mixture is None else self._mixture.logits.grad
        return [gradient for gradient in (own, self._slope) if gradient is not None]

    def term(self, *, absolute: bool) -> Tensor:
        """How undecided the sub-vectors are in the mean, [] with a gradient; 0 if they are not."""
        assert self._mixture is not None
        ratios = self._mixture.ratios()
        terms = 1 - (2 * ratios - 1).abs() if absolute else ratios * (1 - ratios)
        return terms.sum() / self.count

    def add_gradient(self, term: Tensor) -> None:
        """Add the gradient of a function of the logits to theirs."""
        assert self._mixture is not None
        (own,) = torch.autograd.grad(term, self._mixture.logits)
        grad = self._mixture.logits.grad
        self._mixture.logits.grad = own if grad is None else grad + own

    def hold_codebook(self) -> None:
        """Let the codebook rest in the next step."""
        if self._layer.codebook is not None:
            self._layer.codebook.grad = None

    def step(self) -> None:
        """Let the logits learn."""
        assert self._optimizer is not None
        self._optimizer.step()
        self._optimizer.zero_grad()

    def confirm(self, threshold: float, share: float, finish: float) -> None:
        """Let sub-vectors decide: those whose best candidate weighs more than ``threshold``.

        If these are too few, the most decided others make up a ``share`` of all; if more than
        ``finish`` of all have decided, the rest does, too.
        """
        assert self._mixture is not None
        best = self._mixture.ratios().amax(dim=1)
        decided = best > threshold
        before = self.count - len(best)
        missing = math.ceil(share * self.count) - before - int(decided.sum())
        if missing > 0:
            order = best.masked_fill(decided, -1).argsort(descending=True, stable=True)
            decided[order[:missing]] = True
        if before + int(decided.sum()) > finish * self.count:
            decided[:] = True
        if bool(decided.any()):
            self._decide(decided)

    def replace(self, *, along_descent: bool) -> None:
        """Exchange candidates that weigh less than a newcomer for codewords that are nearer.

        A newcomer must be nearer than the candidate that goes: to the combination, or to half of
        their distance further down the gradient.
        """
        assert self._mixture is not None and self._optimizer is not None
        mixture, words = self._mixture, self._words()
        ratios = mixture.ratios()
        least, at = ratios.min(dim=1)
        some = (least < _NEWCOMER).nonzero()[:, 0]
        if not len(some) or ratios.shape[1] == len(words):
            return
        at = at[some, None]
        goals = mixture.values(words)[some]
        counts = self._real.expand(self.count, words.shape[1])[mixture.rows[some]]
        going = words[mixture.candidates[some].gather(1, at)[:, 0].long()]
        if along_descent and self._slope is not None:
            slope = self._slope[mixture.rows[some]]
            reach = ((going - goals).square() * counts).sum(dim=1, keepdim=True).sqrt()
            slope = slope / slope.norm(dim=1, keepdim=True).clamp_min(torch.finfo().tiny)
            goals = goals - _DESCENT * reach * slope
        far = ((going - goals).square() * counts).sum(dim=1)
        near, found = self._nearest(goals, counts, 1, but=mixture.candidates[some].long())
        better = near[:, 0] < far
        some, at, found = some[better], at[better], found[better]
        others = ratios[some].scatter(1, at, 0.0)
        shares = (1 - _NEWCOMER) * others / others.sum(dim=1, keepdim=True)
        mixture.candidates[some] = mixture.candidates[some].scatter(1, at, found.to(torch.int32))
        mixture.logits[some] = shares.scatter(1, at, _NEWCOMER).clamp_min(_LEAST_RATIO).log()
        self.replaced += len(some)

    def state_dict(self) -> dict[str, Any]:
        """Return what only the race knows; the indices are the model's."""
        mixture, told = self._mixture, {"moved": self.moved, "replaced": self.replaced}
        if mixture is None or self._optimizer is None:
            return told
        own = {"rows": mixture.rows, "candidates": mixture.candidates, "logits": mixture.logits}
        own = {name: tensor.detach() for name, tensor in own.items()}
        return told | own | {"squares": self._squares()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state_dict` gave."""
        self.moved, self.replaced = state["moved"], state["replaced"]
        if "rows" not in state:
            self._set(None)
            return
        device = self._start.rows.device
        rows, candidates, logits, squares = (
            state[name].to(device, copy=True)
            for name in ("rows", "candidates", "logits", "squares")
        )
        self._set(Mixture(rows, candidates, logits), squares)

    def _decide(self, decided: Tensor) -> None:
        """Let the sub-vectors that ``decided`` [L] names take their best candidates."""
        mixture, indices = self._mixture, self._weight.indices
        assert mixture is not None
        best = mixture.logits.argmax(dim=1, keepdim=True)
        chosen = mixture.candidates.gather(1, best)[decided, 0].to(indices.dtype)
        rows = mixture.rows[decided]
        self.moved += int((indices[rows] != chosen).sum())
        indices[rows] = chosen
        rest = ~decided
        squares = self._squares()[rest]
        left = Mixture(mixture.rows[rest], mixture.candidates[rest], mixture.logits[rest])
        self._set(left if len(left.rows) else None, squares)

    def _set(self, mixture: Mixture | None, squares: Tensor | None = None) -> None:
        """Give the layer a mixture, and its logits an optimiser with a memory of ``squares``."""
        self._mixture = self._weight.mixture = mixture
        self._optimizer = None
        if mixture is None:
            return
        self._optimizer = torch.optim.RMSprop([mixture.logits], lr=self._rate, alpha=_MEMORY)
        if squares is not None:
            own = {"step": torch.zeros(()), "square_avg": squares}
            self._optimizer.state[mixture.logits] = own

    def _squares(self) -> Tensor:
        """Mean of the squared gradients of the logits."""
        assert self._mixture is not None and self._optimizer is not None
        own = self._optimizer.state.get(self._mixture.logits, {})
        squares: Tensor = own.get("square_avg", torch.zeros_like(self._mixture.logits))
        return squares.detach()

    def _words(self) -> Tensor:
        return self._weight.codewords(self._layer.codebook).detach()

    def _points(self, original: Tensor | None) -> tuple[Tensor, Tensor]:
        """Where the sub-vectors are, in units, and which coordinates count; both [N, d]."""
        latent = self._layer.latent
        if original is None:
            assert latent is not None
            free = latent.abs() < FROZEN  # the others carry no magnitude
            return latent.abs().masked_fill(~free, 0), free * self._real
        points = cut(original.to(self._weight.unit), self._layer, self._weight.unit)
        points = points if latent is None else points.abs()
        return points, self._real.expand_as(points)

    def _nearest(
        self, points: Tensor, counts: Tensor, n: int, but: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Squared distances and indices [L, n] of the codewords nearest to ``points`` [L, d].

        Ascending. Only coordinates that ``counts`` [L, d] names with 1 count, and no codewords
        of ``but`` [L, m].
        """
        words = self._words()
        distances, indices = [], []
        for start in range(0, len(points), _ROWS):
            rows = slice(start, start + _ROWS)
            own, weights = points[rows], counts[rows].to(words)
            gaps = (own.square() * weights).sum(dim=1, keepdim=True)
            gaps = gaps - 2 * (own * weights) @ words.T + weights @ words.square().T
            if but is not None:
                gaps.scatter_(1, but[rows], math.inf)
            found = gaps.clamp_min_(0).topk(n, dim=1, largest=False)
            distances.append(found.values)
            indices.append(found.indices)
        return torch.cat(distances), torch.cat(indices)

    def _observe(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        if self._watching and output.requires_grad:
            output.register_hook(self._add_slope)  # type: ignore[no-untyped-call]

    def _add_slope(self, grad: Tensor) -> None:
        slope = cut(grad.float(), self._layer)
        if self._layer.latent is not None:
            slope = slope * self._weight.in_effect(self._layer.latent.detach()).sign()
        self._slope = slope if self._slope is None else self._slope + slope
