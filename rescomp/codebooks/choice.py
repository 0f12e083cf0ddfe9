"""The codeword, and the signs, that bring ``d`` weights nearest in a metric that couples them.

A group of ``d`` columns is held transposed, [d, O]. What an error ``e`` [d] of one output costs is
``e' M e``, with one ``M`` for all outputs: the Schur complement of the Hessian, or a diagonal
block of it. Codewords are compared without forming the error of every pair.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rescomp.codebooks.settings import Fitting

__all__ = ["Choice", "Codewords", "cost_of"]

#: Times that pairs of signs are turned, after all single ones.
_PAIRS = 1


@dataclass(frozen=True, eq=False)
class Choice:
    """What was chosen for a group of columns.

    Attributes
    ----------
    indices : [O] int64
    negative : [d, O] bool, or None where codewords carry their own signs
    """

    indices: Tensor
    negative: Tensor | None


@dataclass(frozen=True, eq=False)
class Codewords:
    """A codebook as it is stored, in units, and how it is applied.

    Attributes
    ----------
    book : [k, d]
        Magnitudes where signs are stored beside them.
    signed : bool
        Whether they are.
    parity : bool
        Whether the number of negative signs is even.
    candidates : int
        Codewords whose signs are searched, the nearest by the diagonal of the metric.
    """

    book: Tensor
    signed: bool
    parity: bool = False
    candidates: int = Fitting.candidates

    def decode(self, choice: Choice, unit: Tensor) -> Tensor:
        """Weights [d, O] of a choice; ``unit`` is [1] or [O]."""
        values = self.book[choice.indices].T
        if choice.negative is not None:
            values = torch.where(choice.negative, -values, values)
        return values * unit

    def choose(self, weight: Tensor, metric: Tensor, unit: Tensor) -> Choice:
        """Choose for every output.

        Plain codewords are all compared, exactly. With signs, the candidates' signs start as the
        weights' and turn, one by one and in pairs (with parity in pairs alone), where that lowers
        the cost.

        Parameters
        ----------
        weight : [d, O]
        metric : [d, d] positive semi-definite
        unit : [1] or [O]
        """
        if not self.signed:
            return Choice(self._nearest(weight, metric, unit), None)
        return self._signed(weight, metric, unit)

    def _nearest(self, weight: Tensor, metric: Tensor, unit: Tensor) -> Tensor:
        scores = self._scores(metric @ weight, ((self.book @ metric) * self.book).sum(1), unit)
        return scores.argmin(dim=1)

    def _scores(self, pulls: Tensor, norms: Tensor, unit: Tensor) -> Tensor:
        """Cost [O, k] over the unit, up to what all codewords share."""
        own = unit.expand(pulls.shape[1])[:, None] * norms
        return own.addmm_(pulls.T, self.book.T, alpha=-2)

    def _signed(self, weight: Tensor, metric: Tensor, unit: Tensor) -> Choice:
        d, outputs = weight.shape
        diagonal = metric.diagonal()
        scores = self._scores(weight.abs() * diagonal[:, None], self.book.square() @ diagonal, unit)
        count = min(self.candidates, len(self.book))
        found = scores.topk(count, dim=1, largest=False, sorted=False).indices.T  # [c, O]
        # Signed values [d, c * O] of the candidates, and what they leave.
        values = torch.copysign(self.book[found].permute(2, 0, 1) * unit, weight[:, None]).reshape(
            d, count * outputs
        )
        pulls = metric @ (weight[:, None] - values.view(d, count, outputs)).reshape(d, -1)
        if not self.parity:
            _turn_each(values, pulls, metric)
        else:
            _make_even(values, pulls, metric)
        for _ in range(_PAIRS if d > 1 else 0):
            _turn_pair(values, pulls, metric)
            if not self.parity:
                _turn_each(values, pulls, metric)
        rest = weight[:, None] - values.view(d, count, outputs)
        costs = (rest * pulls.view(d, count, outputs)).sum(0)
        best = costs.argmin(dim=0, keepdim=True)
        chosen = values.view(d, count, outputs).gather(1, best.expand(d, 1, outputs))[:, 0]
        return Choice(found.gather(0, best)[0], torch.signbit(chosen))


def _turn_each(values: Tensor, pulls: Tensor, metric: Tensor) -> None:
    """Turn sign after sign of ``values`` [d, n] where that lowers the cost."""
    for j, row in enumerate(metric):
        twice = 2 * values[j]
        change = twice * (2 * pulls[j] + twice * row[j])
        twice.masked_fill_(change >= 0, 0)
        values[j] -= twice
        pulls.addr_(row, twice)


def _make_even(values: Tensor, pulls: Tensor, metric: Tensor) -> None:
    """Turn the cheapest sign where the number of negative ones is odd; zeros have a sign, too."""
    odd = torch.signbit(values).sum(0) % 2 == 1
    _turn(values, pulls, metric, _changes(values, pulls, metric).argmin(dim=0), odd)


def _turn_pair(values: Tensor, pulls: Tensor, metric: Tensor) -> None:
    """Turn the two signs that together lower the cost most, where any do."""
    a, b = torch.triu_indices(len(values), len(values), 1, device=values.device)
    single = _changes(values, pulls, metric)
    both = (8 * metric[a, b])[:, None] * values[a] * values[b]
    both += single[a]
    both += single[b]
    least, at = both.min(dim=0)
    _turn(values, pulls, metric, a[at], least < 0)
    _turn(values, pulls, metric, b[at], least < 0)


def _changes(values: Tensor, pulls: Tensor, metric: Tensor) -> Tensor:
    """What turning each sign would change the cost by, [d, n]."""
    return 4 * values * (pulls + values * metric.diagonal()[:, None])


def _turn(values: Tensor, pulls: Tensor, metric: Tensor, signs: Tensor, where: Tensor) -> None:
    """Turn sign ``signs[n]`` of column n, where asked for."""
    own = values.gather(0, signs[None])[0]
    values.scatter_(0, signs[None], torch.where(where, -own, own)[None])
    pulls.addcmul_(metric[:, signs], torch.where(where, 2 * own, 0)[None])


def cost_of(rest: Tensor, metric: Tensor) -> Tensor:
    """``e' M e`` [O] of errors ``rest`` [d, O]."""
    return (rest * (metric @ rest)).sum(0)
