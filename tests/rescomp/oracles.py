"""Synthetic layers, and the published algorithms written out literally, in numpy float64.

Nothing here is fast or shared with the solver: matrices are inverted anew for every column, both
cross matrices are formed, and least squares are solved again after every column.
"""

from dataclasses import dataclass

import numpy as np
import torch

from rescomp import Statistics
from vq.container import Geometry
from vq.formats.clip import fit_grid

DAMPING = 0.01


@dataclass
class Problem:
    """A layer: weight [O, I], inputs of tokens in columns [I, N], quantised and not."""

    weight: np.ndarray
    x: np.ndarray
    y: np.ndarray

    @property
    def hessian(self):
        return self.x @ self.x.T

    @property
    def cross(self):
        return (self.y - self.x) @ self.x.T

    def statistics(self, dtype=torch.float64):
        found = Statistics.empty(len(self.x), cross=True, dtype=dtype)
        found.add(torch.from_numpy(self.x.T.copy()), torch.from_numpy(self.y.T.copy()))
        return found

    def tensor(self):
        return torch.from_numpy(self.weight)

    def error(self, quantized):
        """The objective of the asymmetric methods, per token, summed directly."""
        gap = self.weight @ self.y - np.asarray(quantized, np.float64) @ self.x
        return (gap**2).sum() / self.x.shape[1]


def problem(outputs=12, inputs=40, tokens=400, *, seed=0, spectrum=1.0, bits=3, same=False):
    """Layer behind a linear one that was rounded to nearest; its latents have a power spectrum."""
    rng = np.random.default_rng(seed)
    latent = rng.standard_normal((inputs, tokens)) * np.arange(1, inputs + 1)[:, None] ** -spectrum
    mix = np.linalg.qr(rng.standard_normal((inputs, inputs)))[0]
    latent = mix @ latent * rng.lognormal(0, 0.5, (inputs, 1))
    before = rng.standard_normal((inputs, inputs)) / np.sqrt(inputs)
    step = np.abs(before).max(axis=1, keepdims=True) / ((2**bits - 1) / 2)
    half = 2 ** (bits - 1)
    rounded = np.clip(np.round(before / step), -half, half - 1) * step
    y = before @ latent
    x = y.copy() if same else rounded @ latent
    return Problem(rng.standard_normal((outputs, inputs)) / np.sqrt(inputs), x, y)


def damped(hessian, damping=DAMPING):
    return hessian + damping * np.diag(hessian).mean() * np.eye(len(hessian))


class Levels:
    """Grid of a layer spread over its weights, to round single columns."""

    def __init__(self, weight, g: Geometry, clip=None):
        grid = fit_grid(torch.from_numpy(weight), g, clip)
        self.spread(grid.scale, grid.zero, g)

    def spread(self, scale, zero, g):
        wide = np.repeat(scale.double().numpy(), g.group_width, 1)[:, : g.I]
        top = 127 if g.method == "int8" else (1 << g.b) - 1
        if g.method == "int8":
            low = np.full_like(wide, -127)
        elif zero is None:
            low, top = np.full_like(wide, -(1 << (g.b - 1))), (1 << (g.b - 1)) - 1
        else:
            low = -np.repeat(zero.double().numpy(), g.group_width, 1)[:, : g.I]
            top = top + low
        self.scale, self.low, self.high = wide, low, np.broadcast_to(top, low.shape).copy()

    def level(self, column, values):
        steps = np.round(values / self.scale[:, column])
        return np.clip(steps, self.low[:, column], self.high[:, column])

    def fit(self, start, weight, kind):
        """Take the grid of the columns from ``start`` from what they are now."""
        part = Levels(weight, kind.geometry("part", "linear", weight.shape))
        for whole, new in ((self.scale, part.scale), (self.low, part.low), (self.high, part.high)):
            whole[:, start : start + weight.shape[1]] = new

    def round(self, column, values):
        return self.level(column, values) * self.scale[:, column]


def solves(matrix, hessian):
    """``matrix[q, F] inv(H[F, F])`` for every q, F = q+1 and on; one solve per column."""
    out = np.zeros_like(hessian)
    for q in range(len(hessian) - 1):
        free = slice(q + 1, None)
        out[q, free] = np.linalg.solve(hessian[free, free], matrix[q, free])
    return out


def literal(
    p: Problem, levels: Levels, *, alpha=0.0, alpha2=0.0, cross=True, mode="allw", block=128,
    damping=DAMPING, order=None, dynamic=None,
):  # fmt: skip
    """Two matrices, ``P`` and ``R``, in a loop over blocks; integers [O, I] and the weights seen.

    Weights are those just before rounding, in the order of solving. With ``dynamic``, a method such
    as ``Int4(group=16)``, a group's grid is fitted when its first column is next.
    """
    inputs = len(p.x)
    order = np.arange(inputs) if order is None else order
    hessian = damped(p.hessian, damping)[np.ix_(order, order)]
    difference = p.cross[np.ix_(order, order)] * cross
    u = np.linalg.cholesky(np.linalg.inv(hessian)).T
    big_p = solves(difference, hessian)
    # (y x')[q, F] inv(H[F, F]), undamped off the diagonal, which is all that it reads
    big_r = solves(difference + hessian, hessian)
    original = p.weight[:, order]
    weight = original.copy()
    integers = np.zeros_like(weight)
    seen = np.zeros_like(weight)
    for start in range(0, inputs, block):
        end = min(start + block, inputs)
        after = slice(end, None)
        errors = np.zeros((len(weight), end - start))
        for q in range(start, end):
            if dynamic and q % dynamic.group == 0:
                levels.fit(q, weight[:, q : q + dynamic.group], dynamic)
            w = weight[:, q].copy()
            rounded = levels.round(order[q], w)
            error = (w - rounded) / u[q, q]
            inside = slice(q + 1, end)
            weight[:, inside] += (
                -np.outer(error, u[q, inside])
                + alpha * np.outer(w, big_p[q, inside])
                + alpha2 * np.outer(original[:, q] - w, big_r[q, inside])
            )
            errors[:, q - start] = error
            integers[:, order[q]] = levels.level(order[q], w)
            seen[:, q] = w
            weight[:, q] = rounded if mode == "org" else w
        own = weight[:, start:end]
        weight[:, after] += (
            -errors @ u[start:end, after]
            + alpha * own @ big_p[start:end, after]
            + alpha2 * (original[:, start:end] - own) @ big_r[start:end, after]
        )
    return integers, seen


def resolved(p: Problem, levels: Levels, *, asymmetric: bool, damping=DAMPING):
    """Round a column, then solve the least squares of all free ones again, from the data.

    The damping is data too: rows that say how far the weight is from its target.
    """
    inputs = len(p.x)
    ridge = np.sqrt(damping * np.diag(p.hessian).mean()) * np.eye(inputs)
    x = np.hstack([p.x, ridge])
    # Asymmetric: W y on the data, W itself in the ridge, as inv(damped H) has it.
    target = p.weight @ (np.hstack([p.y, ridge]) if asymmetric else x)
    integers = np.zeros_like(p.weight)
    done = np.zeros_like(target)
    for q in range(inputs):
        free = np.linalg.lstsq(x[q:].T, (target - done).T, rcond=None)[0].T
        integers[:, q] = levels.level(q, free[:, 0])
        done = done + np.outer(levels.round(q, free[:, 0]), x[q])
    return integers
