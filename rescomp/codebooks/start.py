"""The codebook that the solver starts with: weighted k-means, then expectation-maximisation."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from rescomp.codebooks.choice import Codewords, cost_of
from vq.clustering.kmeans import kmeans
from vq.container import Geometry

__all__ = ["clustered", "expected"]

#: Sub-vectors per codeword that clustering looks at; what is refitted later sees all.
_SAMPLE = 256
#: Those that it starts with: the first iterations have far to go, and few points say where.
_COARSE = 32
#: How far codewords move once all are looked at, in units of the way to their points' mean.
_STEP = 2.0


def clustered(
    goal: Tensor, unit: Tensor, costs: Tensor, g: Geometry, iterations: int, seed: int
) -> Tensor:
    """Cluster sub-vectors of a weight in units, every input weighed by what an error there costs.

    Parameters
    ----------
    goal : [I, O]
    unit : [O]
    costs : [I]
        Of a squared error at every input.
    g : Geometry
    iterations, seed : int

    Returns
    -------
    [k, d] of goal's type
    """
    groups, outputs = len(goal) // g.d, goal.shape[1]
    generator = torch.Generator().manual_seed(seed)
    count = groups * outputs
    chosen = torch.randperm(count, generator=generator)[: _SAMPLE * g.k].to(goal.device)
    group, output = chosen // outputs, chosen % outputs
    points = goal.view(groups, g.d, outputs)[group, :, output] / unit[output][:, None]
    weights = costs.view(groups, g.d)[group] * unit[output].square()[:, None]
    weights = weights / weights.mean()
    if g.sign_bits:
        points = points.abs()
    all_points, all_weights = (
        np.ascontiguousarray(x.float().cpu().numpy()) for x in (points, weights)
    )
    few = slice(_COARSE * g.k)
    book = kmeans(
        all_points[few], g.k, weights=all_weights[few], iterations=iterations, seed=seed
    ).codebook
    if len(all_points) > _COARSE * g.k:
        book = kmeans(
            all_points, g.k, weights=all_weights, iterations=iterations, start=book, step=_STEP
        ).codebook
    return torch.from_numpy(book).to(goal)


def expected(
    goal: Tensor, unit: Tensor, metrics: Tensor, words: Codewords, rounds: int, seed: int
) -> Tensor:
    """Refine a codebook by expectation-maximisation, in the exact metric of every group (GPTVQ).

    Every round, sub-vectors choose their codewords and signs, and every codeword becomes the least
    squares of those that chose it: with ``s`` the signs and scales of one, it solves
    ``sum(s M s) c = sum(s M w)``. Rounds end early once the cost falls no more.

    Parameters
    ----------
    goal : [I, O]
    unit : [O]
    metrics : [I / d, d, d]
        What an error of every group costs.
    words : Codewords
        To start from.
    rounds, seed : int

    Returns
    -------
    [k, d] of goal's type
    """
    k, d = words.book.shape
    outputs = goal.shape[1]
    if rounds and outputs > (limit := max(_SAMPLE * k // len(metrics), 1)):
        generator = torch.Generator().manual_seed(seed)
        few = torch.randperm(outputs, generator=generator)[:limit].to(goal.device)
        goal, unit = goal[:, few], unit[few]
    best, least = words.book, torch.inf
    for turn in range(rounds + 1 if rounds else 0):
        curves, pulls, cost = goal.new_zeros(k, d * d), goal.new_zeros(k, d), 0.0
        for weight, metric in zip(goal.view(len(metrics), d, -1), metrics, strict=True):
            choice = words.choose(weight, metric, unit)
            cost += float(cost_of(weight - choice.values, metric).sum())
            signs = unit.expand_as(weight)
            if choice.negative is not None:
                signs = torch.where(choice.negative, -signs, signs)
            rows = (signs[:, None] * signs * metric[..., None]).reshape(d * d, -1)
            curves.index_add_(0, choice.indices, rows.T)
            pulls.index_add_(0, choice.indices, (signs * (metric @ weight)).T)
        if not cost < least:
            break
        best, least = words.book, cost
        if turn < rounds:
            found = _fitted(curves.view(k, d, d), pulls, words.book)
            words = replace(words, book=found.clamp(min=0) if words.signed else found)
    return best


def _fitted(curves: Tensor, pulls: Tensor, before: Tensor) -> Tensor:
    """Codewords [k, d] of least squares; where curves leave them open, they stay."""
    rest = pulls - (curves @ before[..., None])[..., 0]
    moved: Tensor = (torch.linalg.pinv(curves, hermitian=True) @ rest[..., None])[..., 0]
    return before + moved
