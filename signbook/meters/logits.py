"""Meters of what gives logits: classifiers and language models."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from signbook.meters.divergence import Divergence
from signbook.meters.meter import Meter, pair, require, slices
from vq.calibration.batches import call_model
from vq.errors import ConfigError

__all__ = ["Classes", "Tokens", "logits_of"]


class _WithLogits(Meter):
    def __init__(self) -> None:
        super().__init__()
        self._divergence = Divergence()
        self._floor: Divergence | None = None

    def _compare(self, outputs: Sequence[Tensor], again: Callable[[], Tensor]) -> None:
        """Compare logits [N, classes] of both models, and those of the reference run again."""
        if len(outputs) < 2:
            return
        model, reference = outputs
        self._divergence.add(model, reference)
        if self._floor is None and len(reference):
            self._floor = Divergence()
            self._floor.add(again(), reference)

    def comparison(self) -> dict[str, float]:
        assert self._floor is not None
        return self._divergence.metrics() | {"logit_kl_floor": self._floor.mean}


class Classes(_WithLogits):
    """Top-1 of a classifier."""

    def add(self, batch: Any, models: Sequence[nn.Module]) -> None:
        """Run the models on (inputs, labels [B])."""
        inputs, labels = pair(batch, "labels")
        remedy = "give the index of the class for every input"
        labels = require(labels, "labels", ["inputs"], "integer", remedy).long()

        def run(model: nn.Module) -> Tensor:
            return require(
                logits_of(call_model(model, inputs)), "logits", [len(labels), "classes"], "finite"
            )

        outputs = [run(model) for model in models]
        for place, logits in enumerate(outputs):
            _require_below(labels, "labels", logits.shape[1])
            self.sums[place] += int((logits.argmax(1) == labels).sum())
        self.count += len(labels)
        self._compare(outputs, lambda: run(models[1]))

    def metrics(self, place: int) -> dict[str, float]:
        """``top1``."""
        return {"top1": self.sums[place] / self.count}

    def comparison(self) -> dict[str, float]:
        """What all logits have, and the share of answers that are others than the reference's."""
        found = super().comparison()
        return found | {"changed_top1": 1 - found["same_top1"]}


class Tokens(_WithLogits):
    """Likelihood of texts."""

    def __init__(self) -> None:
        super().__init__()
        self._texts: list[Tensor] = []  # [rows, 1 + models] of tokens and nats

    def add(self, batch: Any, models: Sequence[nn.Module]) -> None:
        """Run the models on (tokens [B, T], scored [B, T])."""
        tokens, scored = pair(batch, "which tokens are scored")
        require(tokens, "tokens", ["rows", "tokens"], "integer")
        require(scored, "scored", list(tokens.shape), "bool")
        chosen = scored[:, 1:]
        targets = tokens[:, 1:][chosen]

        def run(model: nn.Module) -> Tensor:
            logits = logits_of(call_model(model, tokens))
            shape = [*tokens.shape, "vocabulary"]
            if tuple(logits.shape[:-1]) != tuple(tokens.shape):
                require(logits, "logits", shape, "finite")
            _require_below(tokens, "tokens", logits.shape[-1])
            return require(logits[:, :-1][chosen], "logits", ["tokens", "vocabulary"], "finite")

        outputs = [run(model) for model in models]
        found = [_nats(logits, targets).cpu() for logits in outputs]
        for place, nats in enumerate(found):
            self.sums[place] += float(nats.sum())
        text = chosen.nonzero()[:, 0].cpu()
        sums = torch.zeros(len(tokens), 1 + len(models), dtype=torch.double)
        sums.index_add_(0, text, torch.stack([torch.ones(len(text)).double(), *found], dim=1))
        self._texts.append(sums[sums[:, 0] > 0])
        self.count += len(targets)
        self._compare(outputs, lambda: run(models[1]))

    def metrics(self, place: int) -> dict[str, float]:
        """``nats_per_token`` and ``perplexity``."""
        nats = self.sums[place] / self.count
        return {"nats_per_token": nats, "perplexity": math.exp(nats) if nats < 700 else math.inf}

    def comparison(self) -> dict[str, float]:
        """What all logits have, and the change of perplexity.

        Its standard error is that of a ratio over rows, the model and the reference paired and
        linearised: tokens of one row are not independent. One row has none.
        """
        ours, theirs = (self.metrics(place)["perplexity"] for place in (0, 1))
        found = super().comparison() | {"perplexity_change": ours - theirs}
        texts = torch.cat(self._texts)
        if len(texts) > 1:
            tokens, nats, reference = texts.T
            changes = ours * (nats - self.sums[0] / self.count * tokens)
            changes -= theirs * (reference - self.sums[1] / self.count * tokens)
            variance = float(changes.square().sum()) * len(texts) / (len(texts) - 1)
            found["perplexity_change_se"] = math.sqrt(variance) / self.count
        return found


def logits_of(output: Any) -> Tensor:
    """Logits of what a model gives: they themselves, or what has them.

    Raises
    ------
    ConfigError
    """
    found = getattr(output, "logits", output)
    if not isinstance(found, Tensor):
        raise ConfigError(f"model must give logits, not {type(found).__name__}")
    return found


def _nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood [N] of targets [N] under logits [N, V], float64."""
    found = [torch.zeros(0, dtype=torch.double, device=logits.device)]
    for rows in slices(len(targets)):
        likelihood = logits[rows].float().log_softmax(-1)
        found.append(-likelihood.gather(1, targets[rows, None].long())[:, 0].double())
    return torch.cat(found)


def _require_below(values: Tensor, what: str, bound: int) -> None:
    """Require values from 0 to below ``bound``."""
    least, most = int(values.min()), int(values.max())
    if least < 0 or most >= bound:
        wrong = least if least < 0 else most
        raise ConfigError(f"{what} must be 0 to {bound - 1}, which the model knows, not {wrong}")
