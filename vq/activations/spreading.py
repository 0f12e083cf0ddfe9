"""Transforms that spread what is large in a token over all channels (DuQuant, arXiv 2406.01721).

Smoothing moves part of the range into weights. A rotation within blocks of channels mixes the
largest ones with others; a permutation deals channels out, so that no block has all the large ones;
a second rotation mixes those.
"""

import math

import torch
from torch import Tensor

from vq.activations.transform import Transform
from vq.calibration.peaks import Peaks
from vq.calibration.rotation import hadamard, orthogonal
from vq.errors import ConfigError

__all__ = ["block_of", "greedy_rotation", "smoothing", "spreading", "zigzag"]

#: Least factor between inputs and weights.
_LEAST = 1e-5


def block_of(inputs: int, most: int) -> int:
    """The largest power of two that divides ``inputs`` and is at most ``most``, another one."""
    if most < 2 or most & (most - 1):
        raise ConfigError(f"block must be a power of two, 2 or more, not {most!r}")
    return math.gcd(inputs, most)


def smoothing(inputs: Tensor, weights: Tensor, alpha: float) -> Tensor:
    """By what inputs are divided, and weights multiplied: ``inputs^alpha / weights^(1 - alpha)``.

    Parameters
    ----------
    inputs, weights : [I]
        Greatest magnitudes by channel; a channel that has none is left as it is.
    alpha : float
        From 0 to 1: how much of the inputs' range moves to the weights.
    """
    inputs, weights = inputs.double(), weights.double()
    found = inputs.pow(alpha) / weights.pow(1 - alpha)
    dead = (inputs == 0) | (weights == 0)
    return found.clamp(min=_LEAST).masked_fill(dead, 1.0)


def greedy_rotation(
    rows: Tensor, block: int, steps: int, generator: torch.Generator
) -> tuple[Tensor, float]:
    """The rotation of all blocks that leaves the smallest range, of those that greedy steps give.

    A step takes the channel of the largest magnitude to the front and multiplies by an orthogonal
    matrix whose first row is constant, so that it is spread evenly; the others are mixed at random.

    Parameters
    ----------
    rows : [n, I] float64
        Tokens.
    block : int
        A power of two that divides I.
    steps : int
        At most so many; the first ones are kept, as many as serve best, perhaps none.
    generator : torch.Generator

    Returns
    -------
    rotation : [block, block] float64
    range : float
        Greatest less least value of ``rows`` in it.
    """
    even = hadamard(block)
    assert even is not None
    even = even / math.sqrt(block)
    parts = rows.cpu().reshape(-1, block)
    turn = torch.eye(block, dtype=torch.float64)
    best, least = turn, float(parts.max() - parts.min())
    for _ in range(steps):
        largest = int(parts.abs().amax(dim=0).argmax())
        order = torch.arange(block)
        order[0], order[largest] = largest, 0
        step = even.clone()
        step[1:] = orthogonal(block - 1, generator) @ even[1:]
        parts, turn = parts[:, order] @ step, turn[:, order] @ step
        reached = float(parts.max() - parts.min())
        if reached < least:
            best, least = turn, reached
    return best, least


def zigzag(peaks: Tensor, block: int) -> Tensor:
    """Order [I] int32 in which blocks get channels of like sizes: dealt out to and fro.

    >>> zigzag(torch.tensor([6.0, 5.0, 4.0, 3.0, 2.0, 1.0]), 3).tolist()
    [0, 3, 4, 1, 2, 5]
    """
    ranked = peaks.argsort(descending=True, stable=True)
    dealt = ranked.reshape(block, -1).clone()  # a row is a round, a column a block
    dealt[1::2] = dealt[1::2].flip(1)
    return dealt.T.reshape(-1).to(torch.int32)


def spreading(
    peaks: Peaks,
    weights: Tensor,
    *,
    alpha: float,
    block: int,
    steps: int,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float32,
) -> Transform:
    """Smoothing, rotation, permutation and second rotation for what linears read.

    Parameters
    ----------
    peaks : Peaks
        Of I channels.
    weights : [I]
        Greatest magnitudes in the columns of all linears that read the tensor.
    alpha : float
        Of :func:`smoothing`.
    block : int
        From :func:`block_of`. With one block for all channels, one rotation does.
    steps : int
        Of :func:`greedy_rotation`.
    generator : torch.Generator
    dtype : torch.dtype
        Of the transform.
    """
    device = peaks.rows.device
    scale = smoothing(peaks.largest, weights, alpha).cpu()
    rows = peaks.rows.double().cpu() / scale
    first, _ = greedy_rotation(rows, block, steps, generator)
    parts = [first[None], scale]
    if block < len(scale):
        rows = (rows.reshape(-1, block) @ first).reshape(rows.shape)
        order = zigzag(rows.abs().amax(dim=0), block)
        second, _ = greedy_rotation(rows[:, order.long()], block, steps, generator)
        return Transform(
            first[None].to(device, dtype), scale.to(device, dtype), order.to(device),
            second[None].to(device, dtype),
        )  # fmt: skip
    return Transform(*(part.to(device, dtype) for part in parts))
