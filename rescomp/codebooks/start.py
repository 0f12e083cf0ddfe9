"""The codebook that the solver starts with: weighted k-means."""

import numpy as np
import torch
from torch import Tensor

from vq.clustering.kmeans import kmeans
from vq.container import Geometry

__all__ = ["clustered"]

#: Sub-vectors per codeword that clustering looks at; what is refitted later sees all.
_SAMPLE = 256


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
    chosen = torch.arange(count)
    if count > (limit := max(_SAMPLE * g.k, g.k)):
        chosen = torch.randperm(count, generator=generator)[:limit]
    chosen = chosen.to(goal.device)
    group, output = chosen // outputs, chosen % outputs
    points = goal.view(groups, g.d, outputs)[group, :, output] / unit[output][:, None]
    weights = costs.view(groups, g.d)[group] * unit[output].square()[:, None]
    weights = weights / weights.mean()
    if g.sign_bits:
        points = points.abs()
    found = kmeans(
        np.ascontiguousarray(points.float().cpu().numpy()),
        g.k,
        weights=np.ascontiguousarray(weights.float().cpu().numpy()),
        iterations=iterations,
        seed=seed,
    )
    return torch.from_numpy(found.codebook).to(goal)
