"""A weight that stays packed: tiles, codebook and scales, and what they can do."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vq.container import Container, ContainerError, Geometry, Layer
from vq.container.order import from_stream, to_stream
from vq.errors import ConfigError
from vq.formats.decoded import decoded
from vq.inference.kernels import Operand, packed
from vq.inference.operator import packed_linear, packed_rows
from vq.inference.tiles import ROWS, Tiling, unpack
from vq.layers import weight_of

__all__ = ["PackedWeight"]


class PackedWeight(nn.Module):
    """The weight of one layer, or of several that are tied, as its kernels read it.

    It is moved with its model, but never cast: ``dtype`` says what the model computes in.

    Buffers
    -------
    tiles : [bytes] uint8
        See :mod:`vq.inference.tiles`.
    codebook : [k, d] int8; [0, 1] of scalars
    scale : [0], [1] or [O] float32; with groups [blocks, groups of an output, 16] float16
    zeros : uint8, shaped like ``scale``, or None

    Attributes
    ----------
    geometry : Geometry
        The layer as the container describes it.
    dtype : torch.dtype
        Of the weight that the module would see.
    activations : str
        How they are rounded: "int8", "int16" or "exact" (:mod:`vq.inference.reference`).
    """

    tiles: Tensor
    codebook: Tensor
    scale: Tensor
    zeros: Tensor | None

    def __init__(
        self,
        geometry: Geometry,
        stream: NDArray[np.uint8],
        codebook: Tensor | None,
        scale: NDArray[np.float32],
        groups: tuple[NDArray[np.float16], NDArray[np.uint8] | None] | None,
        dtype: torch.dtype,
        activations: str,
    ) -> None:
        super().__init__()
        self.geometry = geometry
        self.dtype = dtype
        self.activations = activations
        self.tiling = t = Tiling.of(geometry)
        self.register_buffer("tiles", packed(geometry, stream))
        none = torch.empty(0, 1, dtype=torch.int8)
        self.register_buffer("codebook", none if codebook is None else codebook)
        scales, zeros = groups or (None, None)
        own = torch.from_numpy(scale.copy()) if scales is None else _in_blocks(t, scales)
        self.register_buffer("scale", own)
        self.register_buffer("zeros", None if zeros is None else _in_blocks(t, zeros))

    @classmethod
    def stored(
        cls,
        container: Container,
        name: str,
        dtype: torch.dtype,
        activations: str,
        codebooks: dict[str, Tensor],
    ) -> "PackedWeight":
        """Of a layer of a file; ``codebooks`` holds those that layers share, by their names.

        Raises
        ------
        ContainerError
            If the layer is damaged.
        """
        g = container.geometry(name)
        book = None
        if g.k:
            if g.codebook not in codebooks:
                codebooks[g.codebook] = torch.from_numpy(container.codebook(name).copy())
            book = codebooks[g.codebook]
        groups = None
        if g.group:
            zeros = container.group_zeros(name) if g.zeros else None
            groups = container.group_scales(name), zeros
        scale = container.scale(name) if g.scales else np.empty(0, np.float32)
        try:
            return cls(g, container.stream(name), book, scale, groups, dtype, activations)
        except ContainerError as error:
            text = str(error).removeprefix(f"{container.path}: ")
            raise ContainerError(f"{container.path}: {text}") from None

    @classmethod
    def encoded(
        cls, layer: Layer, dtype: torch.dtype, activations: str, codebooks: dict[str, Tensor]
    ) -> "PackedWeight":
        """Of a layer that is ready to be written."""
        g = layer.geometry
        book = None
        if layer.codebook is not None:
            book = codebooks.setdefault(g.codebook, torch.from_numpy(layer.codebook.copy()))
        groups = None
        if layer.group_scales is not None:
            place = g.O, g.groups // g.O, g.tile
            zeros = layer.group_zeros
            groups = (
                from_stream(layer.group_scales, *place),
                None if zeros is None else from_stream(zeros, *place),
            )
        return cls(g, layer.stream, book, layer.scale, groups, dtype, activations)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.dtype = fn(torch.empty(0, dtype=self.dtype)).dtype

        def moved(tensor: Tensor) -> Tensor:
            out = fn(tensor)
            return out if out.dtype == tensor.dtype else tensor.to(out.device)

        return super()._apply(moved, recurse)  # type: ignore[no-untyped-call, no-any-return]

    def multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """``x`` [..., I] times the weight, and a bias: [..., O].

        Raises
        ------
        ConfigError
            If ``x`` needs a gradient, or is of a width or dtype that no kernel takes.
        """
        if torch.is_grad_enabled() and x.requires_grad:
            raise ConfigError(
                f"layer {self.geometry.name!r}: a packed weight has no gradients; call the model "
                "under torch.no_grad(), or train one that is loaded without packed=True"
            )
        found: Tensor = packed_linear(
            x, self.tiles, self.codebook, self.scale, self.zeros, bias, list(self.tiling),
            self.activations,
        )  # fmt: skip
        return found

    def operand(self, bias: Tensor | None) -> Operand:
        """The layer as kernels take it."""
        own = None if bias is None else bias.float().contiguous()
        return Operand(self.tiling, self.tiles, self.codebook, self.scale, self.zeros, own)

    def rows(self, chosen: Tensor) -> Tensor:
        """Rows of the matrix [O, I], decoded: [..., I] for integers [...]."""
        found: Tensor = packed_rows(
            chosen, self.tiles, self.codebook, self.scale, self.zeros, list(self.tiling)
        )
        return found.to(self.dtype)

    def forward(self) -> Tensor:
        """The weight as its module would hold it, decoded anew."""
        g = self.geometry
        matrix = self.rows(torch.arange(g.O, device=self.tiles.device))
        return decoded(weight_of(matrix, g.shape, g.op, g.axis).contiguous(), g.name)

    def to_layer(self, name: str) -> Layer:
        """Encode for the container as layer ``name``: the bytes that it came from."""
        g = self.geometry
        book = f"{name}.codebook" if g.codebook == f"{g.name}.codebook" else g.codebook
        scale = self.scale.cpu().numpy()
        groups: list[NDArray[Any] | None] = [None, None]
        if g.group:
            t = Tiling.of(g)
            for place, part in enumerate((self.scale, self.zeros)):
                if part is not None:
                    groups[place] = to_stream(_by_output(t, part), g.tile)
            scale = np.empty(0, np.float32)
        return Layer(
            replace(g, name=name, codebook=book),
            unpack(g, self.tiles.cpu().numpy()),
            scale,
            self.codebook.cpu().numpy() if g.k else None,
            *groups,
        )

    def extra_repr(self) -> str:
        g = self.geometry
        return f"{g.O}, {g.I}, method={g.method}, activations={self.activations}"


def _in_blocks(t: Tiling, groups: NDArray[np.generic]) -> Tensor:
    """Values of groups [O, groups of an output] as [blocks, groups of an output, 16]."""
    filled = np.zeros((t.blocks * ROWS, groups.shape[1]), groups.dtype)
    filled[: len(groups)] = groups
    own = filled.reshape(t.blocks, ROWS, -1).swapaxes(1, 2)
    return torch.from_numpy(np.ascontiguousarray(own))


def _by_output(t: Tiling, blocks: Tensor) -> NDArray[np.generic]:
    """Undo :func:`_in_blocks`."""
    found = blocks.transpose(1, 2).reshape(-1, blocks.shape[1])[: t.outputs]
    return found.cpu().contiguous().numpy()
