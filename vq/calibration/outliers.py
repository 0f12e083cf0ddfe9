"""Tokens whose inputs of layers are far larger than those of others (PrefixQuant, 2410.05265)."""

import math
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from vq import distributed
from vq.calibration.batches import Batch
from vq.calibration.lengths import tokens_in
from vq.calibration.stages import Stage
from vq.calibration.streams import Runner
from vq.recipe.selection import Selected

__all__ = ["outlier_tokens"]


def outlier_tokens(
    model: nn.Module, batches: Sequence[Batch], layers: Sequence[Selected], times: float = 64.0
) -> tuple[list[int], int]:
    """Tokens to put in front, so that those of a text are none of them, and how many a text has.

    A token is an outlier of a layer if the greatest magnitude of its input exceeds so many times
    the median over its sequence. As many of the most frequent ones are given as a sequence has of
    them in the mean, rounded up, in the layer that has most: the number. The first place of a
    sequence counts there, but not among the frequent ones: whatever stands there is an outlier.

    Parameters
    ----------
    model : nn.Module
    batches : sequence of batches
        Of tokens [B, T], of all processes.
    layers : sequence of Selected
        Linears whose inputs are looked at.
    times : float
    """
    runner = Runner(model, batches, None, offload=False)
    stage = Stage("model", tuple(layer.name for layer in layers))
    counts, found, sequences = [0] * len(layers), Counter[int](), 0
    for batch in range(len(runner)):
        tokens = tokens_in(runner.batches[batch])
        assert tokens is not None
        mask = runner.mask(batch)
        sequences += len(tokens)
        with ExitStack() as stack:
            watches = [_Watch(tokens.to(runner.device), mask, times) for _ in layers]
            for layer, watch in zip(layers, watches, strict=True):
                handle = layer.modules[0].register_forward_pre_hook(watch, with_kwargs=True)
                stack.callback(handle.remove)
            runner.run(stage, batch, None)
        for i, watch in enumerate(watches):
            counts[i] += watch.count
            found.update(watch.ids)
    gathered = distributed.gather((counts, sorted(found.items()), sequences))
    total = sum(part[2] for part in gathered)
    most = max(sum(part[0][i] for part in gathered) for i in range(len(layers))) / total
    ids = Counter[int]()
    for _, items, _ in gathered:
        ids.update(dict(items))
    ranked = sorted(ids, key=lambda token: (-ids[token], token))
    return ranked[: math.ceil(most)], math.ceil(most)


class _Watch:
    """Hook that finds the outliers among a layer's inputs."""

    def __init__(self, tokens: Tensor, mask: Tensor | None, times: float) -> None:
        self.count, self.ids = 0, list[int]()
        self._tokens, self._mask, self._times = tokens, mask, times

    def __call__(
        self, module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]
    ) -> None:
        x = args[0] if args else next(iter(kwargs.values()))
        if x.shape[:-1].numel() != self._tokens.numel():
            return  # of an expert, which sees some tokens only
        size = x.detach().abs().amax(dim=-1).reshape(self._tokens.shape).float()
        counted = (
            torch.ones_like(self._tokens, dtype=torch.bool) if self._mask is None else self._mask
        )
        middle = size.masked_fill(~counted, torch.nan).nanmedian(dim=1, keepdim=True).values
        outlier = (size > self._times * middle) & counted
        self.count += int(outlier.sum())
        later = outlier.clone()
        first = counted.int().argmax(dim=1, keepdim=True)  # where padding ends
        later.scatter_(1, first, False)
        self.ids += self._tokens[later].tolist()
