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

from vq.clustering.cluster import ClusteredLayer, sub_vectors
from vq.container import Geometry, Layer
from vq.container.order import to_stream
from vq.errors import ConfigError
from vq.formats.grids import Grid, spread
from vq.formats.integers import CODE_MAX, codebook_step, round_through
from vq.layers import along_outputs, join_grid, matrix_of, weight_of

__all__ = ["FROZEN", "Compressed", "GroupedWeight", "Int8Weight", "PlainVQ", "SignSplit"]

#: A latent sign of this magnitude is frozen: no optimiser step is large enough to move it.
FROZEN = 2.0**100


class Compressed(nn.Module):
    """Base of all methods: a weight that is a function of trainable tensors.

    Attributes
    ----------
    geometry : Geometry
        The layer as the container will describe it.
    dtype : torch.dtype
        Of the weight that the module sees.
    """

    def __init__(self, geometry: Geometry, dtype: torch.dtype) -> None:
        super().__init__()
        self.geometry = geometry
        self.dtype = dtype
        self._taken = False

    def right_inverse(self, weight: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Hand torch the tensors to train; called once, when the weight is replaced.

        Raises
        ------
        ConfigError
            If somebody assigns to the compressed weight later.
        """
        if self._taken:
            raise ConfigError(
                f"layer {self.geometry.name!r}: a compressed weight must not be assigned to; "
                "compress the original model instead"
            )
        self._taken = True
        originals = self.originals(weight)
        # torch wants a single tensor to have the weight's dtype, but allows any in a tuple.
        alike = len(originals) == 1 and originals[0].dtype == weight.dtype
        return originals[0] if alike else originals

    def share(self) -> None:
        """Allow one more module to take this weight: one whose own weight was tied to it."""
        self._taken = False

    def originals(self, weight: Tensor) -> tuple[Tensor, ...]:
        """Tensors to train, as they start for an original ``weight``."""
        raise NotImplementedError

    def approximation(self, weight: Tensor) -> Tensor:
        """What an original ``weight`` is replaced by, in its own size wherever the scale goes."""
        decoded: Tensor = self(*self.originals(weight))
        return decoded

    def to_layer(self, name: str, *originals: Tensor) -> Layer:
        """Encode for the container as layer ``name``; ``originals`` are what torch trains."""
        raise NotImplementedError


class _Gather(torch.autograd.Function):
    """Look up codewords [k, d] by indices [N] and give them the signs of latents [N, d].

    The gradient of a codeword sums over its sub-vectors, each with its sign. The gradient of a
    latent is that of its weight times the codeword's magnitude: a straight-through estimator
    with the identity for the sign function (SSVQ, arXiv 2503.08668). Frozen latents have none.

    Everything that is as large as the weight is made once and then changed in place: on a CPU,
    new memory costs more than the arithmetic.
    """

    @staticmethod
    def forward(ctx: Any, book: Tensor, latent: Tensor | None, indices: Tensor) -> Tensor:
        ctx.save_for_backward(book, latent, indices)
        values = book.index_select(0, indices)
        return values if latent is None else values.copysign_(latent)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        book, latent, indices = ctx.saved_tensors
        signed = grad
        if latent is not None:
            signed = torch.copysign(book.new_ones(()), latent).mul_(grad)
        # With 64-bit indices, index_add_ has a path four times as fast.
        grad_book = torch.zeros_like(book).index_add_(0, indices.long(), signed)
        if latent is None:
            return grad_book, None, None
        grad_latent = book.index_select(0, indices).mul_(grad)
        frozen = latent.abs() >= FROZEN
        return grad_book, grad_latent.masked_fill_(frozen, 0), None


class _EvenSigns(torch.autograd.Function):
    """Latents [N, d] whose number of minus signs is even in every sub-vector.

    Where it is odd, the smallest latent, the one that is least certain, turns its sign. The
    gradient passes as if nothing happened.
    """

    @staticmethod
    def forward(ctx: Any, latent: Tensor) -> Tensor:
        odd = torch.signbit(latent).sum(dim=1, keepdim=True) % 2 == 1
        least = latent.abs().argmin(dim=1, keepdim=True)
        smallest = latent.gather(1, least)
        return latent.scatter(1, least, torch.where(odd, -smallest, smallest))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


class _Codebook(Compressed):
    """What SSVQ and VQ share: a codebook in integers, indices, and one scale or one per output.

    Where a norm has taken the scale over, the weight is made of the integers themselves.

    Buffers
    -------
    indices : [Go * Gi] int32
        Codeword of every sub-vector, in grid order.
    unit : [1] or [O] float32
        Root mean square of the original weight. The scale is ``unit`` times the value of one
        integer step of the codebook.
    """

    low: int
    indices: Tensor
    unit: Tensor

    def __init__(self, geometry: Geometry, clustered: ClusteredLayer, weight: Tensor) -> None:
        super().__init__(geometry, weight.dtype)
        self.register_buffer("unit", torch.from_numpy(clustered.unit).to(weight.device))
        indices = torch.from_numpy(clustered.indices.astype(np.int32))
        self.register_buffer("indices", indices.to(weight.device))
        self._start = clustered.codebook

    def originals(self, weight: Tensor) -> tuple[Tensor, ...]:
        return (torch.from_numpy(self._start.copy()).to(weight.device),)

    def approximation(self, weight: Tensor) -> Tensor:
        decoded = super().approximation(weight)
        if self.geometry.scales:
            return decoded
        return decoded * along_outputs(self.initial_scale(), self.geometry.op, weight.ndim)

    def initial_scale(self) -> Tensor:
        """Scale of the codebook that clustering found, stored or not; [1] or [O] float32."""
        return self.scale(torch.from_numpy(self._start).to(self.unit.device))

    def scale(self, codebook: Tensor) -> Tensor:
        """What 1 of the integers is worth in the original weight, [1] or [O] float32."""
        return self.unit * codebook_step(codebook)

    def integers(self, codebook: Tensor) -> Tensor:
        """Codebook [k, d] as the whole numbers that are stored."""
        return round_through(codebook / codebook_step(codebook), self.low)

    def decode(self, codebook: Tensor, latent: Tensor | None) -> Tensor:
        """Weight of the module from its codebook and the signs of ``latent`` [N, d]."""
        g = self.geometry
        integers = self.integers(codebook)
        scale = self.scale(codebook)
        # With one scale, multiplying the k codewords equals multiplying all weights, bit for bit.
        book = integers * scale if g.scales == 1 else integers
        values: Tensor = _Gather.apply(book, latent, self.indices)  # type: ignore[no-untyped-call]
        matrix = join_grid(values.reshape(*g.grid, g.d), (g.O, g.I), g.axis)
        if g.scales > 1:
            matrix = matrix * scale[:, None]
        return weight_of(matrix, g.shape, g.op, g.axis).to(self.dtype)

    def stored(self, name: str, codebook: Tensor) -> dict[str, Any]:
        """Arguments that both kinds of container layers take."""
        g = self.geometry
        own = g.codebook == f"{g.name}.codebook"
        codebook = codebook.detach()
        return {
            "codebook": self.integers(codebook).cpu().numpy().astype(np.int8),
            "indices": self.in_stream_order(self.indices),
            "scale": self.scale(codebook)[: g.scales].cpu().numpy(),  # none, or all
            "shape": g.shape,
            "op": g.op,
            "axis": g.axis,
            "tile_outputs": g.tile_outputs,
            "codebook_name": f"{name}.codebook" if own else g.codebook,
        }

    def in_stream_order(self, items: Tensor) -> NDArray[Any]:
        """Bring an array over sub-vectors [Go * Gi, ...] from grid order into stream order."""
        grid = items.cpu().numpy().reshape(*self.geometry.grid, *items.shape[1:])
        return to_stream(grid, self.geometry.tile)


class SignSplit(_Codebook):
    """Sign-splitting VQ: ``weight = scale * codebook[indices] * sign(latent)``.

    Trains the codebook [k, d] (``original0``) and the latent signs [N, d] (``original1``).
    """

    low = 0  # codewords are magnitudes

    def originals(self, weight: Tensor) -> tuple[Tensor, ...]:
        # Latents start as the weights themselves, in units: alpha = 1 in the paper's terms.
        points = sub_vectors(weight, self.geometry, self.unit)
        return *super().originals(weight), torch.from_numpy(points).to(weight.device)

    def forward(self, codebook: Tensor, latent: Tensor) -> Tensor:
        return self.decode(codebook, self.in_effect(latent))

    def in_effect(self, latent: Tensor) -> Tensor:
        """Latents [N, d] whose sign bits are the signs of the weights, also where they are 0."""
        if self.geometry.sign_bits == self.geometry.d:
            return latent
        even: Tensor = _EvenSigns.apply(latent)  # type: ignore[no-untyped-call]
        return even

    def to_layer(self, name: str, *originals: Tensor) -> Layer:
        codebook, latent = originals
        return Layer.ssvq(
            name,
            signs=self.in_stream_order(torch.signbit(self.in_effect(latent.detach()))),
            parity=self.geometry.sign_bits < self.geometry.d,
            **self.stored(name, codebook),
        )


class PlainVQ(_Codebook):
    """Plain VQ: ``weight = scale * codebook[indices]``. Trains the codebook (``original``)."""

    low = -CODE_MAX

    def forward(self, codebook: Tensor) -> Tensor:
        return self.decode(codebook, None)

    def to_layer(self, name: str, *originals: Tensor) -> Layer:
        return Layer.vq(name, **self.stored(name, originals[0]))


class Int8Weight(Compressed):
    """Eight-bit integers with a scale per output; trains the weight itself (``original``)."""

    def __init__(self, geometry: Geometry, weight: Tensor) -> None:
        super().__init__(geometry, weight.dtype)

    def originals(self, weight: Tensor) -> tuple[Tensor, ...]:
        return (weight.detach().float().clone(),)

    def integers(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Matrix of whole numbers [O, I] and scales [O]."""
        matrix = matrix_of(weight, self.geometry.op, self.geometry.axis)
        peak = matrix.detach().abs().amax(dim=1)
        scale = torch.where(peak > 0, peak / CODE_MAX, torch.ones_like(peak))
        return round_through(matrix / scale[:, None]), scale

    def forward(self, weight: Tensor) -> Tensor:
        g = self.geometry
        integers, scale = self.integers(weight)
        return weight_of(integers * scale[:, None], g.shape, g.op, g.axis).to(self.dtype)

    def to_layer(self, name: str, *originals: Tensor) -> Layer:
        g = self.geometry
        integers, scale = self.integers(originals[0].detach())
        return Layer.int8(
            name,
            integers=integers.cpu().numpy().astype(np.int8),
            scale=scale.cpu().numpy(),
            shape=g.shape,
            op=g.op,
            tile_outputs=g.tile_outputs,
        )


class GroupedWeight(Compressed):
    """Codes of a few bits on a grid for every group: ``weight = (code - zero) * scale``.

    Trains the weight itself (``original``), straight through its rounding to the nearest level.
    The grid stays as it was given: weights that training pushes past its ends saturate.

    Codes that something better than rounding has chosen go the same way: make the module's weight
    what they decode to on their grid, and every one of them rounds to itself.

    Buffers
    -------
    scale : [O, ceil(I / group)] float32
        Numbers that fp16 holds.
    zero : [O, ceil(I / group)] uint8, or None where the layer stores no zeros
    """

    scale: Tensor
    zero: Tensor | None

    def __init__(self, geometry: Geometry, weight: Tensor, grid: Grid) -> None:
        super().__init__(geometry, weight.dtype)
        self.register_buffer("scale", grid.scale)
        self.register_buffer("zero", grid.zero)

    def originals(self, weight: Tensor) -> tuple[Tensor, ...]:
        return (weight.detach().float().clone(),)

    def zeros(self) -> int | Tensor:
        """Code of the weight 0: one for all, or [O, I] float32."""
        g = self.geometry
        return 1 << (g.b - 1) if self.zero is None else spread(self.zero.float(), g)

    def integers(self, weight: Tensor, scale: Tensor) -> Tensor:
        """Matrix of codes minus zeros, [O, I] whole numbers; ``scale`` is that of each weight."""
        g = self.geometry
        low = -self.zeros()
        matrix = matrix_of(weight, g.op, g.axis)
        # Adding 0 makes a zero of what -0.1 rounds to: a decoder knows no negative zero.
        return round_through(matrix / scale, low, low + ((1 << g.b) - 1)) + 0.0

    def forward(self, weight: Tensor) -> Tensor:
        g = self.geometry
        scale = spread(self.scale, g)
        return weight_of(self.integers(weight, scale) * scale, g.shape, g.op, g.axis).to(self.dtype)

    def to_layer(self, name: str, *originals: Tensor) -> Layer:
        g = self.geometry
        integers = self.integers(originals[0].detach(), spread(self.scale, g))
        codes = integers + self.zeros()
        return Layer.grouped(
            name,
            method=g.method,
            codes=codes.cpu().numpy().astype(np.uint8),
            group_scales=self.scale.cpu().numpy().astype(np.float16),
            group_zeros=None if self.zero is None else self.zero.cpu().numpy(),
            group=g.group,
            shape=g.shape,
            op=g.op,
            tile_outputs=g.tile_outputs,
        )
