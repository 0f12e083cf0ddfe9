"""Models that tell, beside what they give, what their blocks give, to learn from both."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vq.calibration.batches import tensors_of
from vq.errors import ConfigError
from vq.formats.model import compressed_layers

__all__ = ["Observed", "Seen", "block_error", "blocks_of"]

#: Variance of what is as good as constant.
_LEAST = 1e-12


class Seen(NamedTuple):
    """What a run of a model gives.

    Attributes
    ----------
    outputs : object
        Of the model.
    blocks : list of list of Tensor
        Of every block, in the order in which they ran.
    """

    outputs: Any
    blocks: list[list[Tensor]]

    @property
    def result(self) -> Any:
        """The outputs' logits if they have any, or the outputs."""
        return getattr(self.outputs, "logits", self.outputs)


class Observed(nn.Module):
    """A model that gives :class:`Seen`.

    Parameters
    ----------
    model : nn.Module
    blocks : sequence of str
        Names of the modules to look at.
    """

    def __init__(self, model: nn.Module, blocks: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self._blocks = list(blocks)

    def forward(self, *args: Any, **kwargs: Any) -> Seen:
        """Run the model."""
        found: list[list[Tensor]] = []

        def note(module: nn.Module, inputs: Any, output: Any) -> None:
            found.append([t for t in tensors_of(output) if t.is_floating_point()])

        handles = [
            self.model.get_submodule(name).register_forward_hook(note) for name in self._blocks
        ]
        try:
            outputs = self.model(*args, **kwargs)
        finally:
            for handle in handles:
                handle.remove()
        return Seen(outputs, found)


def blocks_of(model: nn.Module) -> list[str]:
    """Names of a compressed model's blocks: children of lists and sequences that hold its layers.

    Of sequences inside of blocks, the outer ones count. In a model without any, its own children
    are the blocks.
    """
    layers = [layer.name for layer in compressed_layers(model)]

    def children(name: str, module: nn.Module) -> list[str]:
        names = (f"{name}.{key}" if name else key for key, _ in module.named_children())
        return [child for child in names if any(_within(layer, [child]) for layer in layers)]

    found: list[str] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList | nn.Sequential) and not _within(name, found):
            found += children(name, module)
    return found or children("", model)


def block_error(seen: Seen, wanted: Seen, *, relative: bool) -> Tensor:
    """Mean over blocks of the squared error of what they give, [].

    Parameters
    ----------
    seen, wanted : Seen
        Of the model that learns, and of its teacher.
    relative : bool
        In units of the variance of the teacher's, each block by itself.

    Raises
    ------
    ConfigError
        If they have not run the same blocks.
    """
    shapes = [[[t.shape for t in block] for block in one.blocks] for one in (seen, wanted)]
    if shapes[0] != shapes[1] or not shapes[0]:
        raise ConfigError(
            f"model and teacher must run the same blocks, not {len(shapes[0])} and "
            f"{len(shapes[1])} of them, or of other shapes"
        )
    errors = []
    for mine, theirs in zip(seen.blocks, wanted.blocks, strict=True):
        for one, other in zip(mine, theirs, strict=True):
            goal = other.to(one.device).float()
            error = nn.functional.mse_loss(one.float(), goal)
            errors.append(error / goal.var().clamp_min(_LEAST) if relative else error)
    return torch.stack(errors).mean()


def _within(name: str, outer: Sequence[str]) -> bool:
    return any(f"{name}.".startswith(f"{one}.") for one in outer if one)
