"""Training from scratch: the loop that all models of the zoo that are trained here share."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from vq.errors import TrainingError
from vq.progress import bar

__all__ = ["Pairs", "fit"]

M = TypeVar("M", bound=nn.Module)


class Pairs(Protocol):
    """Batches of (inputs, targets), in as many passes as are asked for."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[Any, Any]]: ...


def fit(
    model: M,
    batches: Pairs,
    loss: Callable[[Any, Any], Tensor],
    *,
    epochs: int,
    rate: float,
    clip: float | None = None,
    description: str = "training the fp32 model",
) -> M:
    """Train ``model`` with AdamW and a one-cycle learning rate (a rise, then a cosine); return it.

    Parameters
    ----------
    model : nn.Module
    batches : Pairs
    loss : callable
        Of what the model gives and the targets, a tensor [].
    epochs : int
        Passes over the batches.
    rate : float
        Highest learning rate.
    clip : float, optional
        Greatest norm of all gradients together.
    description : str
        Of the progress bar.

    Returns
    -------
    nn.Module
        ``model``, in evaluation mode.

    Raises
    ------
    TrainingError
        If a loss is not finite.
    """
    total = epochs * len(batches)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=total)
    model.train()
    with bar(description, total) as advance:
        for epoch in range(epochs):
            for inputs, targets in batches:
                value = loss(model(inputs), targets)
                if not value.isfinite():
                    raise TrainingError(
                        f"loss must be finite, not {value.detach():g} in pass {epoch + 1}; "
                        f"look for NaN in the data, or lower the learning rate of {rate:g}"
                    )
                optimizer.zero_grad(set_to_none=True)
                value.backward()  # type: ignore[no-untyped-call]
                if clip is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), clip)
                optimizer.step()
                schedule.step()
                advance()
            advance(0, note=f"loss {float(value.detach()):.3f}")
    return model.eval()
