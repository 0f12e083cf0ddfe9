"""A fixed transform of what linears read, undone by what their weights have become."""

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vq.formats.kept import dtype_tag
from vq.formats.remaining import Remaining

__all__ = ["Transform", "transforms_first"]


class Transform(Remaining):
    """``x -> (x / scale) @ first``, put in another order, ``@ second``: a hook before linears.

    The matrices are block-diagonal and orthogonal, so that the weight [O, I] of a linear takes
    them in, too (:meth:`carried`), and ``x W'`` stays what it was. Division by the scale is folded
    into the first matrix. Computed in the wider one of its own dtype and that of ``x``, returned in
    that of ``x``.

    Parameters
    ----------
    first : [n, b, b]
        Blocks of the first matrix, or one for all of them. In float32 or float64.
    scale : [I], optional
    order : [I] int32, optional
        Output ``i`` of the first matrix is ``order[i]``.
    second : [n, b, b], optional
    """

    kind: ClassVar[str] = "transform"

    def __init__(
        self,
        first: Tensor,
        scale: Tensor | None = None,
        order: Tensor | None = None,
        second: Tensor | None = None,
    ) -> None:
        self.first, self.scale, self.order, self.second = first, scale, order, second
        folded = first
        if scale is not None:
            folded = first / scale.reshape(-1, first.shape[-1], 1)
        self._folded = folded
        self._placed: dict[torch.device, tuple[Tensor, Tensor | None, Tensor | None]] = {}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What a file stores."""
        found = {"first": self.first, "scale": self.scale}
        found |= {"order": self.order, "second": self.second}
        return {field: tensor for field, tensor in found.items() if tensor is not None}

    @property
    def settings(self) -> dict[str, int]:
        """What a file says beside its tensors: nothing."""
        return {}

    def __repr__(self) -> str:
        shapes = {f: f"{dtype_tag(t)} {list(t.shape)}" for f, t in self.tensors.items()}
        return f"Transform({shapes})"

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        x, *rest = (*args, *kwargs.values())  # a linear has one input, by place or by name
        return (self.apply(x), *rest), {}

    def apply(self, x: Tensor) -> Tensor:
        """Transform inputs [..., I]."""
        first, order, second = self._at(x.device)
        found = _times(x.to(torch.promote_types(x.dtype, first.dtype)), first)
        if order is not None:
            found = found[..., order]
        if second is not None:
            found = _times(found, second)
        return found.to(x.dtype)

    def carried(self, matrix: Tensor) -> Tensor:
        """The matrix [O, I] that gives of transformed inputs what ``matrix`` gave; float64."""
        found = matrix.double()
        if self.scale is not None:
            found = found * self.scale.to(found)
        found = _times(found, self.first.to(found))
        if self.order is not None:
            found = found[:, self.order.to(found.device)]
        return found if self.second is None else _times(found, self.second.to(found))

    def _at(self, device: torch.device) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Tensors where the inputs are; models move, and hooks are not told."""
        if device not in self._placed:
            tensors: Iterable[Tensor | None] = (self._folded, self.order, self.second)
            first, order, second = (None if t is None else t.to(device) for t in tensors)
            assert first is not None
            self._placed[device] = first, order, second
        return self._placed[device]


def transforms_first(module: nn.Module) -> None:
    """Let transforms come before all other hooks of a module, which see what it sees."""
    hooks: Any = module._forward_pre_hooks  # an OrderedDict
    for key in [key for key, hook in hooks.items() if isinstance(hook, Transform)]:
        hooks.move_to_end(key, last=False)


def _times(x: Tensor, blocks: Tensor) -> Tensor:
    """``x @ block_diagonal(blocks)``, [..., I]."""
    size = blocks.shape[-1]
    parts = x.reshape(-1, x.shape[-1] // size, size)
    if len(blocks) == 1:
        return (parts @ blocks[0]).reshape(x.shape)
    return torch.bmm(parts.transpose(0, 1), blocks).transpose(0, 1).reshape(x.shape)
