"""Fine-tune a compressed model: codebooks, signs, and everything that was kept."""

import math
from collections.abc import Callable, Iterable, Sized
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vq.errors import ConfigError
from vq.freezing import Freezing, SignFreezer, SignTelemetry
from vq.model import compressed_layers
from vq.parametrizations import SignSplit
from vq.progress import bar

__all__ = ["FinetuneResult", "Rates", "finetune_"]


@dataclass(frozen=True)
class Rates:
    """Learning rates of Adam.

    Attributes
    ----------
    signs, codebooks : float
        In units of the layer's root-mean-square weight: a latent of average size flips after
        about ``1 / signs`` steps of steady gradient.
    rest : float
        Norms, biases, and every layer that was kept.
    """

    signs: float = 3e-2
    codebooks: float = 1e-2
    rest: float = 1e-3


@dataclass
class FinetuneResult:
    """Record of a run: one entry per epoch."""

    losses: list[float] = field(default_factory=list)
    signs: list[SignTelemetry] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain data for a run record."""
        return asdict(self)


def finetune_(
    model: nn.Module,
    train_loader: Iterable[tuple[Tensor, Tensor]],
    *,
    epochs: int = 10,
    rates: Rates | None = None,
    freezing: Freezing | None = Freezing(),  # noqa: B008 - frozen dataclass
    loss: Callable[[Tensor, Tensor], Tensor] = nn.functional.cross_entropy,
    fixed_signs: bool = False,
    progress: bool = True,
) -> FinetuneResult:
    """Train a model that :func:`vq.compress_` has compressed, in place.

    Adam with a cosine learning rate that ends at zero; no weight decay, because decay drives
    latents to zero and so manufactures sign flips.

    Parameters
    ----------
    model : nn.Module
    train_loader : iterable of (inputs, targets)
        Iterated once per epoch; must have a length.
    epochs : int
    rates : Rates, optional
    freezing : Freezing or None
        None lets all signs move to the end.
    loss : callable
        ``loss(model(inputs), targets)`` gives a scalar.
    fixed_signs : bool
        Keep every sign as it is; the control that shows what learning them is worth.
    progress : bool
        Show a progress bar when standard error is a terminal.

    Raises
    ------
    ConfigError
        If the model holds no compressed layer, or the loader no batch.
    """
    layers = list(compressed_layers(model))
    if not layers:
        raise ConfigError("model must hold a compressed layer, not none; call vq.compress_ first")
    steps_per_epoch = len(train_loader) if isinstance(train_loader, Sized) else 0
    if not steps_per_epoch or epochs < 1:
        raise ConfigError(
            f"training must have at least one step, not {epochs} epochs of "
            f"{steps_per_epoch} batches"
        )
    total = epochs * steps_per_epoch
    groups = _parameter_groups(model, rates or Rates(), fixed_signs)
    optimizer = torch.optim.Adam(groups)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / total))
    )
    freezer = SignFreezer(layers, total, None if fixed_signs else freezing)
    magnitudes = [x.codebook for x in layers if isinstance(x.weight, SignSplit)]
    device = next(model.parameters()).device
    result = FinetuneResult()
    model.train()
    with bar("fine-tuning", total, enabled=progress) as advance:
        for _ in range(epochs):
            summed = torch.zeros((), device=device)
            for inputs, targets in train_loader:
                value = loss(model(inputs.to(device)), targets.to(device))
                optimizer.zero_grad(set_to_none=True)
                value.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                with torch.no_grad():
                    for codebook in magnitudes:
                        assert codebook is not None
                        codebook.clamp_(min=0)  # a negative codeword would undo the split
                freezer.step()
                summed += value.detach()
                advance()
            result.losses.append(float(summed) / steps_per_epoch)
            signs = freezer.telemetry()
            if signs is not None:
                result.signs.append(signs)
            advance(0, note=_note(result.losses[-1], signs))
    model.eval()
    return result


def _parameter_groups(model: nn.Module, rates: Rates, fixed_signs: bool) -> list[dict[str, Any]]:
    layers = list(compressed_layers(model))
    latents = [layer.latent for layer in layers if layer.latent is not None]
    shared = {id(layer.codebook): layer.codebook for layer in layers if layer.codebook is not None}
    signs = [] if fixed_signs else latents
    codebooks = list(shared.values())
    special = {id(p) for p in (*latents, *codebooks)}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in special]
    groups: list[dict[str, Any]] = [
        {"params": signs, "lr": rates.signs},
        {"params": codebooks, "lr": rates.codebooks},
        {"params": rest, "lr": rates.rest},
    ]
    return [group for group in groups if group["params"]]


def _note(loss: float, signs: SignTelemetry | None) -> str:
    text = f"loss {loss:.4f}"
    if signs is not None:
        text += f"  changed {signs.changed:.1%}  frozen {signs.frozen:.1%}"
    return text
