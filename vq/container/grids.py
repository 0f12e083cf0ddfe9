"""Rounding to a few bits with numpy alone, where no torch is at hand."""

import numpy as np
from numpy.typing import NDArray

from vq.container import order
from vq.container.constants import CODE_MAX, FP16_MAX, FP16_MIN
from vq.container.geometry import Geometry
from vq.errors import WeightError

__all__ = ["round_to_levels"]


def round_to_levels(
    matrix: NDArray[np.float32], g: Geometry
) -> tuple[NDArray[np.int8], NDArray[np.floating]]:
    """Integers [O, I] int8 and scales of a matrix, rounded to the nearest levels.

    Those, bit for bit, that a recipe gives such a weight (:mod:`vq.formats.grids`). The scales
    are [O, 1] float32 for int8, else [O, ceil(I / group)] float16; there are no zeros.

    Raises
    ------
    WeightError
        If weights are too large for the fp16 scales of groups.
    """
    if not g.group:
        peak = np.abs(matrix).max(axis=1, keepdims=True)
        wide = np.where(peak > 0, peak / np.float32(CODE_MAX), np.float32(1))
        return np.rint(matrix / wide).astype(np.int8), wide
    middle = 1 << (g.b - 1)
    half = np.float32((1 << g.b) - 1) / 2
    padded = np.pad(np.abs(matrix), ((0, 0), (0, -g.I % g.group_width)))
    exact = padded.reshape(g.O, -1, g.group_width).max(axis=2) / half
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused
        scale = np.where(exact == 0, 1, np.maximum(exact, FP16_MIN)).astype(np.float16)
    if not np.isfinite(scale).all():
        raise WeightError(
            f"layer {g.name!r}: weights must be at most {FP16_MAX * half:g} for the fp16 scales "
            f"of {g.method}, not {float(np.abs(matrix).max()):g}"
        )
    level = order.spread(scale.astype(np.float32), g)
    return np.clip(np.rint(matrix / level), -middle, middle - 1).astype(np.int8), scale
