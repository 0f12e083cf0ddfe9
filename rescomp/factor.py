"""The triangular matrices by which errors are passed on."""

import torch
from torch import Tensor

from vq.calibration.statistics import is_finite

__all__ = ["cross_term_", "inverse_factor", "transposed_times"]

#: Columns of a triangular matrix that are treated as full.
_SLAB = 512


def inverse_factor(hessian: Tensor, damping: float, order: Tensor | None = None) -> Tensor | None:
    """Upper ``U`` with ``inv(H + damping * mean(diag H) * 1) = U'U``.

    One Cholesky factor, taken from the last column to the first, and its inverse: ``H = V V'``
    with ``V`` upper gives ``U = inv(V)``. The inverse of ``H`` itself is never formed. All in
    float64: the rounding of a float32 factor turns more codes than that of all later steps. One
    matrix holds ``H``, its factor and the inverse of that in turn.

    Parameters
    ----------
    hessian : [n, n] symmetric
        Left as it is.
    order : [n] int64, optional
        Columns of ``H`` in the order in which ``U`` has them.

    Returns
    -------
    [n, n] upper triangular in the type of ``hessian``, or None if it does not exist there
    """
    n = len(hessian)
    last_first = torch.arange(n - 1, -1, -1, device=hessian.device)
    if order is not None:
        last_first = order[last_first]
    lower = hessian.index_select(0, last_first).index_select(1, last_first).double()
    lower.diagonal().add_(damping * lower.diagonal().mean())
    # LAPACK works in place on columns, which are rows here: its upper triangle is our lower one.
    info = torch.empty((), dtype=torch.int32, device=lower.device)
    torch.linalg.cholesky_ex(lower.T, upper=True, out=(lower.T, info))
    if int(info) != 0:
        return None
    _invert_lower_(lower)
    inverse = lower.to(hessian.dtype)
    del lower
    inverse = inverse.flip(0, 1)
    return inverse if is_finite(inverse) else None


def _invert_lower_(lower: Tensor) -> None:
    """Invert in place by halves, so that most of the work is products of full matrices."""
    n = len(lower)
    if n <= _SLAB:
        eye = torch.eye(n, dtype=lower.dtype, device=lower.device)
        lower.copy_(torch.linalg.solve_triangular(lower, eye, upper=False))
        return
    half = n // 2
    first, second, below = lower[:half, :half], lower[half:, half:], lower[half:, :half]
    _invert_lower_(first)
    _invert_lower_(second)
    torch.mm((second @ below).neg_(), first, out=below)


def cross_term_(cross: Tensor, factor: Tensor) -> Tensor:
    """``P[q, F] = D[q, F] inv(H[F, F])`` for every column q and the free ones F after it.

    All rows at once: ``P = triu(D U', 1) U``, strictly upper, in place of ``D``.

    Parameters
    ----------
    cross : [n, n]
        ``D``; overwritten and returned.
    factor : [n, n] upper
        ``U`` of :func:`inverse_factor`.
    """
    n = len(factor)
    inner = torch.zeros_like(factor)
    for start in range(0, n, _SLAB):
        end = min(start + _SLAB, n)
        torch.mm(cross[:end, start:], factor[start:end, start:].T, out=inner[:end, start:end])
    inner.triu_(1)
    cross.zero_()
    for start in range(0, n, _SLAB):
        end = min(start + _SLAB, n)
        torch.mm(inner[:end, :end], factor[:end, start:end], out=cross[:end, start:end])
    return cross


def transposed_times(upper: Tensor, rows: Tensor) -> Tensor:
    """``upper' @ rows`` without the half that is zero; [n, n] and [n, m] give [n, m]."""
    out = torch.empty_like(rows)
    for start in range(0, len(upper), _SLAB):
        end = min(start + _SLAB, len(upper))
        torch.mm(upper[:end, start:end].T, rows[:end], out=out[start:end])
    return out
