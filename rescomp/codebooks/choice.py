"""The codeword, and the signs, that bring ``d`` weights nearest in a metric that couples them.

A group of ``d`` columns is held transposed, [d, O]. What an error ``e`` [d] of one output costs is
``e' M e``, with one ``M`` for all outputs: the Schur complement of the Hessian, or a diagonal
block of it. Codewords are compared without forming the error of every pair.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rescomp.codebooks import kernels
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
    values : [d, O]
        The weights that these stand for.
    """

    indices: Tensor
    negative: Tensor | None
    values: Tensor


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

    def choose(self, weight: Tensor, metric: Tensor, unit: Tensor) -> Choice:
        """Choose for every output.

        Plain codewords are all compared, exactly. With signs, the candidates' signs start as the
        weights' and turn, one by one and in pairs (with parity in pairs alone), where that lowers
        the cost. On a CPU with a C compiler a kernel does that; torch does the same in more time.

        Parameters
        ----------
        weight : [d, O]
        metric : [d, d] positive semi-definite
        unit : [1] or [O]
        """
        if self.signed:
            norms = self.book.square() @ metric.diagonal()
        else:
            norms = ((self.book @ metric) * self.book).sum(1)
        if functions := kernels.library(weight):
            found = kernels.choose(
                functions,
                self.book,
                norms,
                metric,
                weight,
                unit,
                signed=self.signed,
                parity=self.parity,
                candidates=min(self.candidates, len(self.book)),
            )
            return Choice(*found)
        return (self._signed if self.signed else self._plain)(weight, metric, norms, unit)

    def _plain(self, weight: Tensor, metric: Tensor, norms: Tensor, unit: Tensor) -> Choice:
        found = _least(self._scores(metric @ weight, norms, unit))
        return Choice(found, None, self.book[found].T * unit)

    def _scores(self, pulls: Tensor, norms: Tensor, unit: Tensor) -> Tensor:
        """Cost [O, k] over the unit, up to what all codewords share."""
        own = unit.expand(pulls.shape[1])[:, None] * norms
        return own.addmm_(pulls.T, self.book.T, alpha=-2)

    def _signed(self, weight: Tensor, metric: Tensor, norms: Tensor, unit: Tensor) -> Choice:
        d, outputs = weight.shape
        scores = self._scores(weight.abs() * metric.diagonal()[:, None], norms, unit)
        found = _smallest(scores, min(self.candidates, len(self.book)))  # [c, O]
        values = self.book.T.index_select(1, found.view(-1)).view(d, -1, outputs) * unit
        values = values.copysign_(weight[:, None]).view(d, -1)
        pulls = metric @ (weight[:, None] - values.view(d, -1, outputs)).view(d, -1)
        if self.parity:
            _make_even(values, pulls, metric)
        else:
            _turn_each(values, pulls, metric)
        # Pairs, which take longest, are turned of the best quarter where single signs are settled.
        count = len(found) if self.parity else -(-len(found) // 4)
        kept = _smallest(_costs(values, pulls, weight), count)
        at = (kept * outputs + torch.arange(outputs, device=kept.device)).view(-1)
        found = found.view(-1)[at]
        values, pulls = values.index_select(1, at), pulls.index_select(1, at)
        for _ in range(_PAIRS if d > 1 else 0):
            _turn_pair(values, pulls, metric)
            if not self.parity:
                _turn_each(values, pulls, metric)
        best = _least(_costs(values, pulls, weight))
        at = best * outputs + torch.arange(outputs, device=best.device)
        values = values.index_select(1, at)
        return Choice(found[at], torch.signbit(values), values)


def _costs(values: Tensor, pulls: Tensor, weight: Tensor) -> Tensor:
    """Cost [O, c] of candidates ``values`` [d, c * O], of which ``pulls`` are left."""
    d, outputs = weight.shape
    rest = weight[:, None] - values.view(d, -1, outputs)
    return rest.mul_(pulls.view(d, -1, outputs)).sum(0).T


def _least(costs: Tensor) -> Tensor:
    """Where every row of [n, k] is least, [n]."""
    if costs.device.type == "cpu":  # numpy's is vectorised
        return torch.from_numpy(costs.numpy().argmin(1))
    return costs.argmin(1)


def _smallest(costs: Tensor, count: int) -> Tensor:
    """Where every row of [n, k] is smallest, [count, n]; overwrites it."""
    found = [_least(costs)]
    for _ in range(count - 1):
        costs.scatter_(1, found[-1][:, None], torch.inf)
        found.append(_least(costs))
    return torch.stack(found)


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
    d = len(values)
    single = _changes(values, pulls, metric)
    gains = torch.empty(d * (d - 1) // 2, values.shape[1], dtype=values.dtype, device=values.device)
    for a, rows in enumerate(torch.split(gains, list(range(d - 1, 0, -1)))):
        torch.mul(values[a + 1 :], -8 * metric[a, a + 1 :, None], out=rows)
        rows.mul_(values[a]).sub_(single[a + 1 :]).sub_(single[a])
    # A gain's last bits say which it is: the greatest is found with its place in one pass.
    kind = torch.int64 if gains.dtype == torch.float64 else torch.int32
    last = (1 << (len(gains) - 1).bit_length()) - 1
    marks = torch.arange(len(gains), dtype=kind, device=gains.device)[:, None]
    most = gains.clamp_(min=0).view(kind).bitwise_and_(~last).bitwise_or_(marks).amax(0)
    a, b = torch.triu_indices(d, d, 1, device=values.device)[:, most & last]
    _turn(values, pulls, metric, a, most > last)
    _turn(values, pulls, metric, b, most > last)


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
