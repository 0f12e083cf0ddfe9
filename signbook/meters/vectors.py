"""Meter of what gives vectors, and how they are read off an output."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from signbook.meters.meter import Meter, require, slices
from vq.calibration.batches import call_model
from vq.errors import ConfigError

__all__ = ["Vectors", "embedding_of"]


class Vectors(Meter):
    """Embeddings of a model beside those of its reference; one of each is kept for every input.

    Parameters
    ----------
    neighbours : int
        Nearest other inputs of an input that are compared.
    """

    def __init__(self, neighbours: int) -> None:
        super().__init__()
        self._neighbours = neighbours
        self._vectors: tuple[list[Tensor], list[Tensor]] = ([], [])

    def add(self, batch: Any, models: Sequence[nn.Module]) -> None:
        """Run the models on inputs."""
        found = [embedding_of(call_model(model, batch), batch) for model in models]
        known = self._vectors[1][0].shape[1] if self.count else found[1].shape[1]
        for place, vectors in enumerate(found):
            require(vectors, "embeddings", [len(found[1]), known], "finite")
            unit = nn.functional.normalize(vectors.float(), dim=1)
            self._vectors[place].append(unit.cpu())
        self.count += len(found[0])

    def metrics(self, place: int) -> dict[str, float]:
        """None alone."""
        return {}

    def comparison(self) -> dict[str, float]:
        """``embedding_cosine`` and ``retrieval_agreement``."""
        if not 1 <= self._neighbours < self.count:
            raise ConfigError(
                f"neighbours must be 1 to {self.count - 1}, one less than there are inputs, "
                f"not {self._neighbours}"
            )
        ours, theirs = (torch.cat(part) for part in self._vectors)
        shared = 0
        for rows in slices(self.count):
            near = [self._nearest(vectors, rows) for vectors in (ours, theirs)]
            shared += int((near[0][:, :, None] == near[1][:, None, :]).sum())
        return {
            "embedding_cosine": float((ours.double() * theirs.double()).sum(1).mean()),
            "retrieval_agreement": shared / (self.count * self._neighbours),
        }

    def _nearest(self, vectors: Tensor, rows: slice) -> Tensor:
        similar = vectors[rows] @ vectors.T
        similar.diagonal(rows.start).fill_(-torch.inf)  # an input is not its own neighbour
        return similar.topk(self._neighbours, dim=1).indices


def embedding_of(output: Any, inputs: Any) -> Tensor:
    """Vectors [B, D] of a model's output: itself, or the mean of its hidden states over tokens."""
    if hasattr(output, "last_hidden_state"):
        hidden: Tensor = output.last_hidden_state
        mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
        weights = (hidden.new_ones(hidden.shape[:2]) if mask is None else mask)[..., None]
        return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
    if not isinstance(output, Tensor) or output.ndim != 2:
        shape = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ConfigError(f"embeddings must be [inputs, dimensions], not {shape}")
    return output
