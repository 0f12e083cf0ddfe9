"""Which tensor learns how fast."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vq.errors import ConfigError
from vq.formats.model import CompressedLayer, compressed_layers
from vq.formats.weights import FROZEN

__all__ = ["CosineAdam", "Rates", "learning", "parameter_groups", "scale_latents_"]


@dataclass(frozen=True)
class Rates:
    """Learning rates of Adam.

    Attributes
    ----------
    signs, codebooks : float
        In units of the layer's root-mean-square weight: a latent of average size flips after
        about ``1 / signs`` steps of steady gradient.
    rest : float
        Norms, biases, and every layer that was kept. A bias whose layer left its scale to a norm
        is that much larger than it was, and so is its rate.
    alpha : float
        Latents start at ``alpha`` times the weights, as the paper has it. Adam's steps do not
        depend on it, so it only divides ``signs``: 1 and one rate less to choose are enough.
    decay : float
        Decoupled weight decay of the kept and int8 weights. Norms and biases, codebooks and
        latents never decay: decay drives latents to zero and so manufactures sign flips.
    scales : float
        Of the scales that layers in codewords store, in units of each; at 0 they stay.
    kept : float, optional
        Of the weights of layers that were kept or are scalar; ``rest`` if not given.
    """

    signs: float = 3e-2
    codebooks: float = 1e-2
    rest: float = 1e-3
    alpha: float = 1.0
    decay: float = 0.0
    scales: float = 0.0
    kept: float | None = None

    def __post_init__(self) -> None:
        for name in ("signs", "codebooks", "rest", "scales", "kept", "decay"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ConfigError(f"rate {name} must be zero or positive, not {value!r}")
        if not 0 < self.alpha < math.inf:
            raise ConfigError(f"alpha must be positive, not {self.alpha!r}")


def parameter_groups(
    model: nn.Module, rates: Rates, *, fixed_signs: bool = False
) -> list[dict[str, Any]]:
    """Sort the tensors of a model, or of a part of one, by how fast they learn.

    Parameters
    ----------
    model : nn.Module
    rates : Rates
    fixed_signs : bool
        Leave the latents out.

    Returns
    -------
    list of dict
        ``params``, ``lr`` and ``weight_decay``, as torch's optimisers take them; none is empty.
        What has a rate of 0 is left out, unless that is everything.
    """
    groups = _sorted(model, rates, fixed_signs=fixed_signs)
    return [group for group in groups if group["lr"]] or groups


@contextmanager
def learning(model: nn.Module, rates: Rates) -> Iterator[None]:
    """Let scales learn if they have a rate, and give nothing gradients that has none."""
    layers = list(compressed_layers(model)) if rates.scales else []
    try:
        for layer in layers:
            layer.weight.free_scales()
        groups = _sorted(model, rates, fixed_signs=False)
        still = [p for group in groups if not group["lr"] for p in group["params"]]
        flags = [(p, p.requires_grad) for p in still]
        try:
            if len(still) < sum(len(group["params"]) for group in groups):
                for parameter in still:
                    parameter.requires_grad_(False)
            yield
        finally:
            for parameter, flag in flags:
                parameter.requires_grad_(flag)
    finally:
        for layer in layers:
            layer.weight.fix_scales()


def _sorted(model: nn.Module, rates: Rates, *, fixed_signs: bool) -> list[dict[str, Any]]:
    """Groups of all tensors."""
    layers = list(compressed_layers(model))
    latents = [layer.latent for layer in layers if layer.latent is not None]
    books = {id(x.codebook): x.codebook for x in layers if x.codebook is not None}
    special = {id(p) for p in (*latents, *books.values())}
    biases = _folded_biases(layers)
    scales = [layer.scales for layer in layers if layer.scales is not None]
    special |= {id(tensor) for tensor in (*scales, *(bias for bias, _ in biases))}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in special]
    kept = rates.rest if rates.kept is None else rates.kept
    groups: list[tuple[list[Tensor], float, float]] = [
        ([] if fixed_signs else latents, rates.signs, 0.0),
        (list(books.values()), rates.codebooks, 0.0),
        ([p for p in rest if p.ndim < 2], rates.rest, 0.0),
        ([p for p in rest if p.ndim >= 2], kept, rates.decay),
        (scales, rates.scales, 0.0),
        *(([bias], rates.rest / unit, 0.0) for bias, unit in biases),
    ]
    return [{"params": p, "lr": lr, "weight_decay": decay} for p, lr, decay in groups if p]


class CosineAdam:
    """AdamW whose learning rates fall along a cosine and end at zero.

    Parameters
    ----------
    groups : list of dict
        ``params``, ``lr`` and, if it is not 0, ``weight_decay``; at least one.
    total_steps : int
    """

    def __init__(self, groups: list[dict[str, Any]], total_steps: int) -> None:
        self._total = total_steps
        self._optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
        self._rates = [group["lr"] for group in groups]

    def step(self, done: int) -> None:
        """Take one step, with the rates due after ``done`` steps."""
        factor = 0.5 * (1 + math.cos(math.pi * min(1.0, done / self._total)))
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        self._optimizer.step()

    def zero_grad(self) -> None:
        """Forget all gradients."""
        self._optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the moments of every tensor."""
        return self._optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state_dict` gave."""
        self._optimizer.load_state_dict(state)


def _folded_biases(layers: Iterable[CompressedLayer]) -> list[tuple[Tensor, float]]:
    """Biases of layers that left their scales to norms, and what 1 of each was worth before.

    Of scales per output, the mean: a batch norm undoes any bias before it.
    """
    found = []
    for layer in layers:
        bias, scale = getattr(layer.module, "bias", None), layer.norm_scale()
        if scale is not None and isinstance(bias, Tensor) and bias.requires_grad:
            found.append((bias, float(scale.mean())))
    return found


@torch.no_grad()
def scale_latents_(layers: Iterable[CompressedLayer], alpha: float) -> None:
    """Multiply all latents by ``alpha`` but those that are frozen; no weight changes."""
    for layer in layers:
        if layer.latent is not None and alpha != 1:
            frozen = layer.latent.abs() >= FROZEN
            layer.latent.copy_(torch.where(frozen, layer.latent, layer.latent * alpha))
