"""The selective scan: a linear recurrence whose steps depend on the sequence.

Gu and Dao, *Mamba: Linear-Time Sequence Modeling with Selective State Spaces* (arXiv 2312.00752),
equation 2 and section 3.2. Every channel ``e`` has a state of ``N`` numbers, and with
``a_t = exp(dt_t A)``, the zero-order hold for ``A``, and ``dt_t B_t``, Euler's step, for ``B``::

    h_t[e, n] = a_t[e, n] h_{t-1}[e, n] + dt_t[e] B_t[n] x_t[e],        h_0 = 0
    y_t[e]    = sum_n C_t[n] h_t[e, n] + D[e] x_t[e]

With A below zero, every ``a`` is in (0, 1), and only products are taken: nothing can overflow, and
nothing is divided by a product that may have underflowed. States are held for one chunk of the
sequence at a time; backwards, they are computed again from the state before the chunk.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vq.errors import ConfigError

__all__ = ["selective_scan"]

#: Steps of a chunk: its states stay in a processor's cache, and its exponentials are one call.
CHUNK = 8


def selective_scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, *, chunk: int = CHUNK
) -> Tensor:
    """Run the recurrence over a sequence of ``L`` steps, from a state of zeros.

    Gradients are exact, and can be taken once. Types below float32 are computed in float32.

    Parameters
    ----------
    x : Tensor [B, L, E]
        Inputs, float32 or float64.
    dt : Tensor [B, L, E]
        Lengths of the steps, above zero.
    A : Tensor [E, N]
        Rates, below zero.
    B, C : Tensor [B, L, N]
        What the states take of the inputs, and what the outputs take of the states.
    D : Tensor [E]
        What the outputs take of the inputs.
    chunk : int
        Steps whose states are in memory at once, ``[B, chunk, N, E]``. It changes nothing else.

    Returns
    -------
    Tensor [B, L, E]
        In the type of ``x``.

    Raises
    ------
    ConfigError
        If shapes do not fit each other, there is no step, or ``chunk`` is below 1.
    """
    if x.ndim != 3 or A.ndim != 2:
        raise ConfigError(
            f"x must be [B, L, E] and A [E, N], not {list(x.shape)} and {list(A.shape)}"
        )
    (rows, length, width), states = x.shape, A.shape[1]
    wanted = {
        "dt": (dt, (rows, length, width)),
        "A": (A, (width, states)),
        "B": (B, (rows, length, states)),
        "C": (C, (rows, length, states)),
        "D": (D, (width,)),
    }
    for name, (tensor, shape) in wanted.items():
        if tensor.shape != shape:
            raise ConfigError(
                f"{name} must be {list(shape)} beside x {list(x.shape)} and A {list(A.shape)}, "
                f"not {list(tensor.shape)}"
            )
    if length < 1:
        raise ConfigError("sequence must have at least one step, not 0")
    if chunk < 1:
        raise ConfigError(f"chunk must be at least 1 step, not {chunk}")
    dtype = torch.promote_types(x.dtype, torch.float32)
    with torch.autocast(x.device.type, enabled=False):
        x_, dt, A, B, C, D = (t.to(dtype) for t in (x, dt, A, B, C, D))
        y: Tensor = _Scan.apply(dt, dt * x_, A.T, B, C, chunk)  # type: ignore[no-untyped-call]
        return (y + D * x_).to(x.dtype)


class _Scan(torch.autograd.Function):
    """``y_t = sum_n C_t[n] h_t[n]`` with ``h_t[n] = exp(dt_t A[n]) h_{t-1}[n] + B_t[n] u_t``.

    All over [B, L, E], with A [N, E]: channels are innermost, where they are many.
    """

    @staticmethod
    def forward(
        ctx: Any, dt: Tensor, u: Tensor, A: Tensor, B: Tensor, C: Tensor, chunk: int
    ) -> Tensor:
        y = torch.empty_like(u)
        state = u.new_zeros(len(u), *A.shape)
        starts = []
        for part in _parts(u.shape[1], chunk):
            starts.append(state)
            _, h = _states(state, dt[:, part], u[:, part], A, B[:, part])
            y[:, part] = (C[:, part, None] @ h).squeeze(2)
            state = h[:, -1].clone()  # not a view, which would keep the chunk
        ctx.save_for_backward(dt, u, A, B, C, torch.stack(starts))
        ctx.chunk = chunk
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        dt, u, A, B, C, starts = ctx.saved_tensors
        dy = dy.contiguous()
        d_dt, d_u, d_A, d_B, d_C = (torch.zeros_like(t) for t in (dt, u, A, B, C))
        later = torch.zeros_like(starts[0])  # what the steps behind ask of the last state
        parts = list(_parts(u.shape[1], ctx.chunk))
        for part, start in zip(reversed(parts), reversed(starts.unbind()), strict=True):
            decay, h = _states(start, dt[:, part], u[:, part], A, B[:, part])
            g = C[:, part, :, None] * dy[:, part, None]  # gradients of the states
            g[:, -1] += later
            for t in reversed(range(g.shape[1] - 1)):
                g[:, t].addcmul_(decay[:, t + 1], g[:, t + 1])
            later = decay[:, 0] * g[:, 0]
            # Rows times transposed matrices: seven times as fast as matrices times columns.
            d_C[:, part] = (dy[:, part, None] @ h.mT).squeeze(2)
            d_B[:, part] = (u[:, part, None] @ g.mT).squeeze(2)
            d_u[:, part] = (B[:, part, None] @ g).squeeze(2)
            g.mul_(decay)  # from here on, gradients of dt A
            g[:, 0].mul_(start)
            g[:, 1:].mul_(h[:, :-1])
            d_dt[:, part] = (g * A).sum(2)
            d_A += g.mul_(dt[:, part, None]).sum((0, 1))
        return d_dt, d_u, d_A, d_B, d_C, None


def _parts(length: int, chunk: int) -> Iterator[slice]:
    return (slice(i, i + chunk) for i in range(0, length, chunk))


def _states(start: Tensor, dt: Tensor, u: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """Decays and states of a chunk, both [B, chunk, N, E]; ``start`` is the state before it."""
    decay = (dt[:, :, None] * A).exp_()
    h = u[:, :, None] * B[..., None]
    h[:, 0].addcmul_(decay[:, 0], start)
    for t in range(1, h.shape[1]):
        h[:, t].addcmul_(decay[:, t], h[:, t - 1])
    return decay, h
