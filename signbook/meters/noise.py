"""Meter of what predicts noise."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from signbook.meters.meter import Meter, pair, require
from vq.calibration.batches import call_model

__all__ = ["Noise"]


class Noise(Meter):
    """Mean squared error over all values."""

    def add(self, batch: Any, models: Sequence[nn.Module]) -> None:
        """Run the models on (inputs, noise)."""
        inputs, noise = pair(batch, "noise")
        require(noise, "noise", list(noise.shape), "finite")
        for place, model in enumerate(models):
            found = call_model(model, inputs)
            predicted = require(found, "predicted noise", list(noise.shape), "finite")
            self.sums[place] += float((predicted.double() - noise.double()).square().sum())
        self.count += noise.numel()

    def metrics(self, place: int) -> dict[str, float]:
        """``eps_mse``."""
        return {"eps_mse": self.sums[place] / self.count}
