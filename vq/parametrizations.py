"""Compressed weights as parametrisations of the user's own modules.

``torch.nn.utils.parametrize`` replaces ``module.weight`` by a function of trainable tensors. The
module keeps its class, its name and its forward, so any model and any training loop work. What
that function returns is bit for bit what the container's readers return: training sees the
integers that are stored, and nothing is lost at export.

Latent tensors are in units of the weight's root mean square (``unit``), so that one learning rate
fits all layers.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vq.container import Layer
from vq.container.order import split, to_stream
from vq.errors import ConfigError
from vq.kmeans import assign, kmeans
from vq.layers import join_grid, matrix_of, weight_of
from vq.recipe import SSVQ, VQ, Int8, Method

__all__ = ["FROZEN", "Compressed", "Int8Weight", "PlainVQ", "SignSplit", "parametrization_for"]

#: A latent sign of this magnitude is frozen: no optimiser step is large enough to move it.
FROZEN = 2.0**100

#: Codewords are integers up to this, so that a hardware decoder emits int8 weights.
CODE_MAX = 127

F32 = NDArray[np.float32]


def parametrization_for(method: Method, weight: Tensor, op: str, *, seed: int) -> "Compressed":
    """Compress one weight and return the parametrisation that reproduces it."""
    match method:
        case SSVQ():
            return SignSplit(method, weight, op, seed=seed)
        case VQ():
            return PlainVQ(method, weight, op, seed=seed)
        case Int8():
            return Int8Weight(method, weight, op)


class Compressed(nn.Module):
    """Base of all methods: a weight that is a function of trainable tensors.

    Attributes
    ----------
    method : SSVQ, VQ or Int8
    op : str
        Operation of the layer, as the container names it.
    shape : tuple of int
        Shape of the weight, outputs first.
    """

    def __init__(self, method: Method, weight: Tensor, op: str) -> None:
        super().__init__()
        self.method = method
        self.op = op
        self.shape = tuple(weight.shape)
        self.dtype = weight.dtype
        self._initial: tuple[Tensor, ...] | None = None

    @property
    def initial(self) -> tuple[Tensor, ...]:
        """Tensors to train as the clustering left them; gone once torch has taken them."""
        if self._initial is None:
            raise ConfigError(
                "a compressed weight must not be assigned to; compress the original model instead"
            )
        return self._initial

    def right_inverse(self, weight: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Hand torch the tensors to train; called once, when the weight is replaced."""
        initial, self._initial = self.initial, None
        return initial if len(initial) > 1 else initial[0]

    def to_layer(self, name: str, *originals: Tensor) -> Layer:
        """Encode for the container; ``originals`` are the tensors torch trains."""
        raise NotImplementedError


class _Round(torch.autograd.Function):
    """Round and clamp to integers; the gradient passes as if nothing had happened."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: int, high: int) -> Tensor:
        return torch.round(x).clamp_(low, high)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0], None, None


def _round(x: Tensor, low: int) -> Tensor:
    rounded: Tensor = _Round.apply(x, low, CODE_MAX)  # type: ignore[no-untyped-call]
    return rounded


class _Gather(torch.autograd.Function):
    """Look up codewords [k, d] by indices [N] and give them the signs of latents [N, d].

    The gradient of a codeword sums over its sub-vectors, each with its sign. The gradient of a
    latent is that of its weight times the codeword's magnitude: a straight-through estimator
    with the identity for the sign function (SSVQ, arXiv 2503.08668). Frozen latents have none.
    """

    @staticmethod
    def forward(ctx: Any, book: Tensor, latent: Tensor | None, indices: Tensor) -> Tensor:
        ctx.save_for_backward(book, latent, indices)
        values = book.index_select(0, indices)
        return values if latent is None else torch.where(latent >= 0, values, -values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        book, latent, indices = ctx.saved_tensors
        signed = grad if latent is None else torch.where(latent >= 0, grad, -grad)
        grad_book = torch.zeros_like(book).index_add_(0, indices, signed.to(book.dtype))
        if latent is None:
            return grad_book, None, None
        grad_latent = grad * book.index_select(0, indices)
        return grad_book, grad_latent.masked_fill_(latent.abs() >= FROZEN, 0), None


class _Codebook(Compressed):
    """What SSVQ and VQ share: a codebook in integers, indices, and one scale or one per output.

    Buffers
    -------
    indices : [Go * Gi] int32
        Codeword of every sub-vector, in grid order.
    unit : [1] or [O] float32
        Root mean square of the original weight. The stored scale is ``unit`` times the value of
        one integer step of the codebook.
    """

    low: int
    indices: Tensor
    unit: Tensor

    def __init__(self, method: SSVQ | VQ, weight: Tensor, op: str, *, seed: int) -> None:
        super().__init__(method, weight, op)
        self.method: SSVQ | VQ = method
        matrix = matrix_of(weight.detach().float())
        self.matrix_shape = (matrix.shape[0], matrix.shape[1])
        rows = matrix if method.scale == "output" else matrix.reshape(1, -1)
        unit = rows.square().mean(dim=1).sqrt()
        unit = torch.where(unit > 0, unit, torch.ones_like(unit))
        grid = split((matrix / unit[:, None]).cpu().numpy(), method.d, method.axis)
        self.grid = (grid.shape[0], grid.shape[1])
        points = grid.reshape(-1, method.d)
        codebook, indices = self._cluster(points, seed)
        self.register_buffer("unit", unit)
        self.register_buffer("indices", torch.from_numpy(indices.astype(np.int32)).to(unit.device))
        self._initial = self._trained(
            torch.from_numpy(codebook).to(unit.device),
            torch.from_numpy(np.array(points)).to(unit.device),
        )

    def _cluster(self, points: F32, seed: int) -> tuple[F32, NDArray[np.int64]]:
        found = kmeans(self._clustered(points), self.method.k, seed=seed)
        integers, step = self._integers(torch.from_numpy(found.codebook))
        # Codewords move a little when they are rounded: let every sub-vector choose again.
        indices, _ = assign(self._clustered(points), (integers * step).numpy())
        return found.codebook, indices

    def _clustered(self, points: F32) -> F32:
        """Return the part of the sub-vectors that the codebook represents."""
        raise NotImplementedError

    def _trained(self, codebook: Tensor, points: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors to train."""
        raise NotImplementedError

    def _integers(self, codebook: Tensor) -> tuple[Tensor, Tensor]:
        """Round a codebook [k, d] to whole numbers that span its peak; also one step's value."""
        peak = codebook.detach().abs().amax()
        step = torch.where(peak > 0, peak / CODE_MAX, torch.ones_like(peak))
        return _round(codebook / step, self.low), step

    def _decode(self, codebook: Tensor, latent: Tensor | None) -> Tensor:
        integers, step = self._integers(codebook)
        scale = self.unit * step
        per_layer = len(scale) == 1
        # With one scale, multiplying the k codewords equals multiplying all weights, bit for bit.
        book = integers * scale if per_layer else integers
        values: Tensor = _Gather.apply(book, latent, self.indices)  # type: ignore[no-untyped-call]
        matrix = join_grid(values.reshape(*self.grid, -1), self.matrix_shape, self.method.axis)
        if not per_layer:
            matrix = matrix * scale[:, None]
        return weight_of(matrix, self.shape).to(self.dtype)

    def _stored(self, codebook: Tensor) -> dict[str, Any]:
        integers, step = self._integers(codebook.detach())
        return {
            "codebook": integers.cpu().numpy().astype(np.int8),
            "indices": self._in_stream_order(self.indices),
            "scale": (self.unit * step).cpu().numpy(),
            "shape": self.shape,
            "op": self.op,
            "axis": self.method.axis,
            "tile_outputs": self.method.tile_outputs,
        }

    def _in_stream_order(self, items: Tensor) -> NDArray[Any]:
        """Bring an array over sub-vectors [Go * Gi, ...] from grid order into stream order."""
        tile = self.method.tile_outputs
        rows = tile if self.method.axis == "in" else tile // self.method.d
        return to_stream(items.cpu().numpy().reshape(*self.grid, *items.shape[1:]), rows)


class SignSplit(_Codebook):
    """Sign-splitting VQ: ``weight = scale * codebook[indices] * sign(latent)``.

    Trains the codebook [k, d] (``original0``) and the latent signs [N, d] (``original1``).
    """

    low = 0  # codewords are magnitudes

    def _clustered(self, points: F32) -> F32:
        return np.abs(points)

    def _trained(self, codebook: Tensor, points: Tensor) -> tuple[Tensor, ...]:
        return codebook, points  # latents start as the weights themselves: alpha = 1

    def forward(self, codebook: Tensor, latent: Tensor) -> Tensor:
        return self._decode(codebook, latent)

    def to_layer(self, name: str, *originals: Tensor) -> Layer:
        codebook, latent = originals
        signs = self._in_stream_order(latent.detach() < 0)
        return Layer.ssvq(name, signs=signs, **self._stored(codebook))


class PlainVQ(_Codebook):
    """Plain VQ: ``weight = scale * codebook[indices]``. Trains the codebook (``original``)."""

    low = -CODE_MAX

    def _clustered(self, points: F32) -> F32:
        return points

    def _trained(self, codebook: Tensor, points: Tensor) -> tuple[Tensor, ...]:
        return (codebook,)

    def forward(self, codebook: Tensor) -> Tensor:
        return self._decode(codebook, None)

    def to_layer(self, name: str, *originals: Tensor) -> Layer:
        return Layer.vq(name, **self._stored(originals[0]))


class Int8Weight(Compressed):
    """Eight-bit integers with a scale per output; trains the weight itself (``original``)."""

    method: Int8

    def __init__(self, method: Int8, weight: Tensor, op: str) -> None:
        super().__init__(method, weight, op)
        self._initial = (weight.detach().float().clone(),)

    def _integers(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        matrix = matrix_of(weight)
        peak = matrix.detach().abs().amax(dim=1)
        scale = torch.where(peak > 0, peak / CODE_MAX, torch.ones_like(peak))
        return _round(matrix / scale[:, None], -CODE_MAX), scale

    def forward(self, weight: Tensor) -> Tensor:
        integers, scale = self._integers(weight)
        return weight_of(integers * scale[:, None], self.shape).to(self.dtype)

    def to_layer(self, name: str, *originals: Tensor) -> Layer:
        integers, scale = self._integers(originals[0].detach())
        return Layer.int8(
            name,
            integers=integers.cpu().numpy().astype(np.int8),
            scale=scale.cpu().numpy(),
            shape=self.shape,
            op=self.op,
            tile_outputs=self.method.tile_outputs,
        )
