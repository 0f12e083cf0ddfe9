"""How large the inputs of layers get: by channel, and in the tokens that hold the largest."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vq import distributed
from vq.calibration.batches import Batch, device_of
from vq.calibration.gathering import Gatherer, Group
from vq.calibration.inputs import rows_of
from vq.calibration.stages import Stage
from vq.calibration.streams import Runner, Stream, Streams
from vq.recipe.selection import Selected

__all__ = ["Peaks", "linears_of", "peaks_of", "readers_of", "samples_of"]


@dataclass(eq=False)
class Peaks:
    """What calibration tells of the greatest inputs of layers that read one tensor.

    Attributes
    ----------
    largest : [I] float32
        Greatest magnitude of each channel.
    rows : [n, I] float32
        Tokens with the greatest magnitudes, in falling order.
    """

    largest: Tensor
    rows: Tensor

    def add(self, rows: Tensor, count: int) -> None:
        """Count tokens [T, I], and keep up to ``count`` of them."""
        rows = rows.float()
        if len(rows):
            self.largest = torch.maximum(self.largest, rows.abs().amax(dim=0))
            kept = torch.cat([self.rows, rows])
            order = kept.abs().amax(dim=1).argsort(descending=True, stable=True)
            self.rows = kept[order[:count]]


def linears_of(layers: Sequence[Selected]) -> list[Selected]:
    """Linears whose inputs are their own: those whose weight another module has, too, are none."""
    return [x for x in layers if x.geometry.op in ("linear", "linear_t") and len(x.modules) == 1]


def readers_of(
    model: nn.Module, batches: Sequence[Batch], layers: Sequence[Selected]
) -> list[Group]:
    """Layers by the tensors that they read, in the order they run."""
    stream = Stream(Runner(model, batches, None, offload=False))
    gatherer = Gatherer(Streams(stream), nullcontext, torch.float32)
    return gatherer.groups(_stage(layers), layers)


def peaks_of(
    model: nn.Module, batches: Sequence[Batch], groups: Sequence[Group], count: int
) -> list[Peaks]:
    """Run a model on all batches, of all processes, and see how large what linears read gets.

    Parameters
    ----------
    model : nn.Module
    batches : sequence of batches
    groups : sequence of Group
        Of linears, from :func:`readers_of`.
    count : int
        Tokens to keep for each group.

    Returns
    -------
    list of Peaks
    """
    found = [_empty(group, device_of(model)) for group in groups]
    for i, rows in _seen(model, batches, groups):
        found[i].add(rows, count)
    if distributed.ranks() > 1:
        return [_together(peaks, count) for peaks in found]
    return found


def samples_of(
    model: nn.Module, batches: Sequence[Batch], groups: Sequence[Group], count: int
) -> list[Tensor]:
    """Run a model on all batches, of all processes, and keep some of what linears read.

    Parameters
    ----------
    model, batches, groups
        As in :func:`peaks_of`.
    count : int
        Tokens to keep of each process, at least, if there are as many: equally far apart in each
        batch, and as many of each.

    Returns
    -------
    list of Tensor
        [n, I] of every group.
    """
    share = -(-count // len(batches))
    kept: list[list[Tensor]] = [[] for _ in groups]
    for i, rows in _seen(model, batches, groups):
        kept[i].append(rows[:: max(1, len(rows) // share)])
    device = device_of(model)
    own = [torch.cat(rows) if rows else torch.zeros(0, 0) for rows in kept]
    if distributed.ranks() == 1:
        return own
    parts = distributed.gather([rows.cpu() for rows in own])
    return [torch.cat(rows).to(device) for rows in zip(*parts, strict=True)]


def _seen(
    model: nn.Module, batches: Sequence[Batch], groups: Sequence[Group]
) -> Iterator[tuple[int, Tensor]]:
    """Places of groups, and tokens [T, I] that they read, in the runs of all batches."""
    runner = Runner(model, batches, None, offload=False)
    stage = _stage([layer for group in groups for layer in group.layers])
    for batch in range(len(runner)):
        seen: list[tuple[int, Tensor]] = []
        with ExitStack() as stack:
            for i, group in enumerate(groups):
                see = _Seer(i, runner.mask(batch), seen)
                for module in group.layers[0].modules:
                    handle = module.register_forward_pre_hook(see, with_kwargs=True)
                    stack.callback(handle.remove)
            runner.run(stage, batch, None)
        yield from seen


class _Seer:
    """Hook that notes what a group reads."""

    def __init__(self, place: int, mask: Tensor | None, seen: list[tuple[int, Tensor]]) -> None:
        self._place, self._mask, self._seen = place, mask, seen

    def __call__(
        self, module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]
    ) -> None:
        x = args[0] if args else next(iter(kwargs.values()))
        (rows,) = rows_of(module, x.detach(), self._mask)
        self._seen.append((self._place, rows))


def _empty(group: Group, device: torch.device) -> Peaks:
    inputs = group.layers[0].geometry.I
    return Peaks(torch.zeros(inputs, device=device), torch.zeros(0, inputs, device=device))


def _together(own: Peaks, count: int) -> Peaks:
    """The same on all processes."""
    device = own.rows.device
    found = Peaks(torch.zeros_like(own.largest), own.rows[:0])
    for rows in distributed.gather(own.rows.cpu()):
        found.add(rows.to(device), count)
    for largest in distributed.gather(own.largest.cpu()):
        found.largest = torch.maximum(found.largest, largest.to(device))
    return found


def _stage(layers: Sequence[Selected]) -> Stage:
    return Stage("model", tuple(layer.name for layer in layers))
