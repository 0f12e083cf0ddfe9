"""The triangular matrices by which errors are passed on."""

import torch
from torch import Tensor

from rescomp.statistics import is_finite

__all__ = ["cross_term", "inverse_factor", "transposed_times"]

#: Columns of a triangular matrix that are treated as full.
_SLAB = 512


def inverse_factor(hessian: Tensor, damping: float) -> Tensor | None:
    """Upper ``U`` with ``inv(H + damping * mean(diag H) * 1) = U'U``.

    One Cholesky factor, taken from the last column to the first, and its inverse: ``H = V V'``
    with ``V`` upper gives ``U = inv(V)``. The inverse of ``H`` itself is never formed. All in
    float64: the rounding of a float32 factor turns more codes than that of all later steps.

    Parameters
    ----------
    hessian : [n, n] symmetric
        Left as it is.

    Returns
    -------
    [n, n] upper triangular in the type of ``hessian``, or None if it does not exist there
    """
    dtype = hessian.dtype
    reversed_ = hessian.flip(0, 1).double()
    del hessian  # of a wide layer, these matrices are what needs memory
    reversed_.diagonal().add_(damping * reversed_.diagonal().mean())
    lower, info = torch.linalg.cholesky_ex(reversed_)
    del reversed_
    if int(info) != 0:
        return None
    upper = lower.flip(0, 1)
    del lower
    _invert_upper_(upper)
    inverse = upper.to(dtype)
    return inverse if is_finite(inverse) else None


def _invert_upper_(v: Tensor) -> None:
    """Inverse in place, by halves, so that most of the work is products of full matrices."""
    n = len(v)
    if n <= _SLAB:
        eye = torch.eye(n, dtype=v.dtype, device=v.device)
        v.copy_(torch.linalg.solve_triangular(v, eye, upper=True))
        return
    half = n // 2
    first, corner, second = v[:half, :half], v[:half, half:], v[half:, half:]
    _invert_upper_(first)
    _invert_upper_(second)
    corner.copy_((first @ corner) @ second).neg_()


def cross_term(cross: Tensor, factor: Tensor) -> Tensor:
    """``P[q, F] = D[q, F] inv(H[F, F])`` for every column q and the free ones F after it.

    All rows at once: ``P = triu(D U', 1) U``, strictly upper.

    Parameters
    ----------
    cross : [n, n]
        ``D``.
    factor : [n, n] upper
        ``U`` of :func:`inverse_factor`.
    """
    n = len(factor)
    inner, out = torch.zeros_like(factor), torch.zeros_like(factor)
    for start in range(0, n, _SLAB):
        end = min(start + _SLAB, n)
        torch.mm(cross[:end, start:], factor[start:end, start:].T, out=inner[:end, start:end])
    inner.triu_(1)
    for start in range(0, n, _SLAB):
        end = min(start + _SLAB, n)
        torch.mm(inner[:end, :end], factor[:end, start:end], out=out[:end, start:end])
    return out


def transposed_times(upper: Tensor, rows: Tensor) -> Tensor:
    """``upper' @ rows`` without the half that is zero; [n, n] and [n, m] give [n, m]."""
    out = torch.empty_like(rows)
    for start in range(0, len(upper), _SLAB):
        end = min(start + _SLAB, len(upper))
        torch.mm(upper[:end, start:end].T, rows[:end], out=out[start:end])
    return out
