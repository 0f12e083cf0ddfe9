"""Weights of the codebook formats: integers, looked up by indices, with signs and a scale.

Latent tensors are in units of the weight's root mean square (``unit``), so that one learning rate
fits all layers.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vq.container import Geometry, Layer
from vq.container.constants import CODE_MAX
from vq.container.order import to_stream
from vq.errors import ConfigError
from vq.formats.integers import applied, book_step, codebook_step, reuse, round_through
from vq.formats.mixture import Mixture, signed
from vq.formats.points import sub_vectors
from vq.formats.weights import FROZEN, Compressed
from vq.layers import along_outputs, join_grid, weight_of

__all__ = ["CodebookWeight", "PlainVQ", "SignSplit", "Start"]


#: Scales fall no further than to this share of what they were.
_LEAST_GAIN = 1e-3


class Start(NamedTuple):
    """What a codebook weight starts with.

    Attributes
    ----------
    codebook : [k, d] float32 in units, or int8
        int8 is a fixed codebook, in integers. Layers that share one hold the same array.
    indices : [Go * Gi] integers
        Codeword of every sub-vector, in grid order.
    unit : [1] or [O] float32
    """

    codebook: NDArray[Any]
    indices: NDArray[np.integer]
    unit: Tensor


class _Gather(torch.autograd.Function):
    """Look up codewords [k, d] by indices [N] and give them the signs of latents [N, d].

    The gradient of a codeword sums over its sub-vectors, each with its sign. The gradient of a
    latent is that of its weight times the codeword's magnitude: a straight-through estimator
    with the identity for the sign function (SSVQ, arXiv 2503.08668). Frozen latents have none.

    Everything that is as large as the weight is made once and then changed in place: on a CPU,
    new memory costs more than the arithmetic.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(book: Tensor, latent: Tensor | None, indices: Tensor) -> Tensor:
        values = book.index_select(0, indices)
        return values if latent is None else reuse(values, "copysign", latent)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor | None, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        book, latent, indices = ctx.saved_tensors
        signed = grad
        if latent is not None:
            signed = reuse(torch.copysign(book.new_ones(()), latent), "mul", grad)
        # With 64-bit indices, index_add_ has a path four times as fast.
        grad_book = reuse(torch.zeros_like(book), "index_add", 0, indices.long(), signed)
        if latent is None:
            return grad_book, None, None
        grad_latent = reuse(book.index_select(0, indices), "mul", grad)
        frozen = latent.abs() >= FROZEN
        return grad_book, reuse(grad_latent, "masked_fill", frozen, 0), None


class _EvenSigns(torch.autograd.Function):
    """Latents [N, d] whose number of minus signs is even in every sub-vector.

    Where it is odd, the smallest latent, the one that is least certain, turns its sign. The
    gradient passes as if nothing happened.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(latent: Tensor) -> Tensor:
        odd = torch.signbit(latent).sum(dim=1, keepdim=True) % 2 == 1
        least = latent.abs().argmin(dim=1, keepdim=True)
        smallest = latent.gather(1, least)
        return latent.scatter(1, least, torch.where(odd, -smallest, smallest))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Nothing of the inputs is needed."""

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


class CodebookWeight(Compressed):
    """What SSVQ and VQ share: a codebook in integers, indices, and one scale or one per output.

    Where a norm has taken the scale over, the weight is made of the integers themselves. A fixed
    codebook is no trainable tensor but a buffer, and so is all of its scale.

    Buffers
    -------
    indices : [Go * Gi] int32
        Codeword of every sub-vector, in grid order.
    unit : [1] or [O] float32
        Root mean square of the original weight, or about that with a fixed codebook. The scale is
        ``unit`` times the value of one integer step of the codebook.
    fixed : [k, d] float32, or None
        Integers of a fixed codebook.

    Parameters of torch
    -------------------
    gain : shaped like ``unit``, or None
        Factor of ``unit`` while scales learn.

    Attributes
    ----------
    mixture : Mixture or None
        Of sub-vectors that have not decided; the indices are those of all others.
    """

    low: int
    indices: Tensor
    unit: Tensor
    fixed: Tensor | None
    gain: nn.Parameter | None

    def __init__(self, geometry: Geometry, weight: Tensor, start: Start) -> None:
        super().__init__(geometry, weight.dtype)
        book = torch.from_numpy(start.codebook)
        given = book.dtype == torch.int8
        self.register_buffer("unit", start.unit.to(weight.device))
        indices = torch.from_numpy(start.indices.astype(np.int32))
        self.register_buffer("indices", indices.to(weight.device))
        self.register_buffer("fixed", book.float().to(weight.device) if given else None)
        self.register_parameter("gain", None)
        self.mixture: Mixture | None = None
        self._start = book
        if given:
            self.roles = tuple(role for role in self.roles if role != "codebook")

    def originals(self, weight: Tensor) -> tuple[Tensor, ...]:
        return () if self.fixed is not None else (self._start.to(weight.device, copy=True),)

    def approximation(self, weight: Tensor) -> Tensor:
        decoded = super().approximation(weight)
        scale = self.norm_scale()
        if scale is None:
            return decoded
        return decoded * along_outputs(scale, self.geometry.op, weight.ndim)

    def norm_scale(self, *originals: Tensor) -> Tensor | None:
        if self.geometry.scales:
            return None
        own = self.tensor("codebook", originals) if originals else None
        return self.scale(self._start.to(self.unit.device) if own is None else own)

    def step(self, codebook: Tensor | None) -> Tensor:
        """Value of one integer of the codebook in units, [] float32."""
        if self.fixed is not None:
            return book_step(self.fixed)
        assert codebook is not None
        return codebook_step(codebook)

    def scale(self, codebook: Tensor | None) -> Tensor:
        """What 1 of the integers is worth in the original weight, [1] or [O] float32."""
        return self.units() * self.step(codebook)

    def units(self) -> Tensor:
        """What 1 of the units of a codebook is worth in the weight, as ``unit`` is shaped."""
        return self.unit if self.gain is None else self.unit * self.gain

    def free_scales(self) -> None:
        if self.geometry.scales:
            self.gain = nn.Parameter(torch.ones_like(self.unit))

    @torch.no_grad()
    def fix_scales(self) -> None:
        if self.gain is not None:
            self.unit.mul_(self.gain)
            self.gain = None

    def freed_scales(self) -> Tensor | None:
        return self.gain

    @torch.no_grad()
    def clamp_(self, *originals: Tensor) -> None:
        """Keep scales positive."""
        if self.gain is not None:
            self.gain.clamp_(min=_LEAST_GAIN)

    def integers(self, codebook: Tensor | None) -> Tensor:
        """Codebook [k, d] as the whole numbers that are stored."""
        if self.fixed is not None:
            return self.fixed
        assert codebook is not None
        return round_through(codebook / codebook_step(codebook), self.low)

    def codewords(self, codebook: Tensor | None) -> Tensor:
        """Codebook [k, d] as it is stored, in units."""
        return self.integers(codebook) * self.step(codebook)

    def forward(self, *originals: Tensor) -> Tensor:
        g = self.geometry
        codebook, latent = (self.tensor(role, originals) for role in ("codebook", "signs"))
        integers = self.integers(codebook)
        scale = self.scale(codebook)
        # With one scale, multiplying the k codewords equals multiplying all weights, bit for bit.
        book = integers * scale if g.scales == 1 else integers
        signs = None if latent is None else self.in_effect(latent)
        matrix = join_grid(self._values(book, signs).reshape(*g.grid, g.d), (g.O, g.I), g.axis)
        if g.scales > 1:
            matrix = matrix * scale[:, None]
        return weight_of(matrix, g.shape, g.op, g.axis).to(self.dtype)

    def _values(self, book: Tensor, signs: Tensor | None) -> Tensor:
        """Sub-vectors [N, d] of the codewords of ``book``, with the signs of latents if given."""
        if self.mixture is None:
            found: Tensor = applied(_Gather, book, signs, self.indices)
            return found
        if self.mixture.covers(self.indices):
            values = self.mixture.values(book)
        else:
            values = self.mixture.among(applied(_Gather, book, None, self.indices), book)
        return values if signs is None else signed(values, signs)

    def in_effect(self, latent: Tensor) -> Tensor:
        """Latents [N, d] whose sign bits are the signs of the weights, also where they are 0."""
        if self.geometry.sign_bits == self.geometry.d:
            return latent
        even: Tensor = applied(_EvenSigns, latent)
        return even

    def stored(self, name: str, codebook: Tensor | None) -> dict[str, Any]:
        """Arguments that both kinds of container layers take."""
        g = self.geometry
        if self.mixture is not None:
            raise ConfigError(
                f"layer {name!r}: all of its sub-vectors must have chosen a codeword to be stored, "
                f"not {len(self.indices) - len(self.mixture.rows):,} of {len(self.indices):,}; end "
                "the training first (Rules.close)"
            )
        own = g.codebook == f"{g.name}.codebook"
        return {
            "codebook": self.integers(codebook).detach().cpu().numpy().astype(np.int8),
            "indices": self.in_stream_order(self.indices),
            "scale": self.scale(codebook).detach()[: g.scales].cpu().numpy(),  # none, or all
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


class SignSplit(CodebookWeight):
    """Sign-splitting VQ: ``weight = scale * codebook[indices] * sign(latent)``.

    Trains the codebook [k, d], unless it is fixed, and the latent signs [N, d].
    """

    roles = ("codebook", "signs")
    low = 0  # codewords are magnitudes

    def originals(self, weight: Tensor) -> tuple[Tensor, ...]:
        # Latents start as the weights themselves, in units: alpha = 1 in the paper's terms.
        points = sub_vectors(weight, self.geometry, self.unit)
        return *super().originals(weight), torch.from_numpy(points).to(weight.device)

    @torch.no_grad()
    def clamp_(self, *originals: Tensor) -> None:
        """Stop codewords at zero, too: a negative one would undo the split."""
        super().clamp_(*originals)
        codebook = self.tensor("codebook", originals)
        if codebook is not None:
            codebook.clamp_(min=0)

    def to_layer(self, name: str, *originals: Tensor) -> Layer:
        codebook, latent = (self.tensor(role, originals) for role in ("codebook", "signs"))
        assert latent is not None
        return Layer.ssvq(
            name,
            signs=self.in_stream_order(torch.signbit(self.in_effect(latent.detach()))),
            parity=self.geometry.sign_bits < self.geometry.d,
            **self.stored(name, codebook),
        )


class PlainVQ(CodebookWeight):
    """Plain VQ: ``weight = scale * codebook[indices]``. Trains the codebook, unless it is fixed."""

    roles = ("codebook",)
    low = -CODE_MAX

    def to_layer(self, name: str, *originals: Tensor) -> Layer:
        return Layer.vq(name, **self.stored(name, self.tensor("codebook", originals)))
