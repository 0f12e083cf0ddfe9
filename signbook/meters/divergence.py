"""Logits of a model against those of its reference, row by row."""

import numpy as np
import torch
from torch import Tensor

from signbook.meters.meter import slices
from vq.errors import ConfigError

__all__ = ["Divergence"]

_QUANTILES = {"median": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}


class Divergence:
    """KL(reference || model) in nats of every row, and how often both choose the same.

    Memory holds one value for every row.
    """

    def __init__(self) -> None:
        self._rows: list[Tensor] = []
        self._same = 0

    def add(self, model: Tensor, reference: Tensor) -> None:
        """Add logits [N, classes] of both.

        Raises
        ------
        ConfigError
            If their shapes differ.
        """
        if reference.shape != model.shape:
            raise ConfigError(
                f"logits must be {list(reference.shape)} as the reference's, "
                f"not {list(model.shape)}"
            )
        self._same += int((model.argmax(1) == reference.argmax(1)).sum())
        for rows in slices(len(model)):
            p, q = (logits[rows].double().log_softmax(-1) for logits in (reference, model))
            # By rounding, what is 0 may come out as less.
            self._rows.append((p.exp() * (p - q)).sum(1).clamp(min=0).cpu())

    @property
    def mean(self) -> float:
        """Over all rows; 0 where there are none."""
        return float(torch.cat(self._rows).mean()) if self._rows else 0.0

    def metrics(self) -> dict[str, float]:
        """``logit_kl`` at the mean and at quantiles, and the share of equal first choices."""
        rows = torch.cat(self._rows).numpy()
        at = np.quantile(rows, list(_QUANTILES.values()))
        quantiles = zip(_QUANTILES, at.tolist(), strict=True)
        return {
            "logit_kl": self.mean,
            **{f"logit_kl_{name}": value for name, value in quantiles},
            "same_top1": self._same / len(rows),
        }
