"""What the vision benches share: arms at equal bits, training, and scores paired per image."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from harness import Bench
from torch import Tensor, nn

import vq
from vq.distillation import Distillation
from vq.finetune import Rates

__all__ = ["CODEBOOK_RATES", "Arm", "Study", "top1"]

CODEBOOK_RATES = (1e-2, 3e-2)


@dataclass(frozen=True)
class Arm:
    """How one arm compresses and trains."""

    recipe: vq.Recipe
    fixed_signs: bool = False
    teacher: bool = False
    importance: str | None = None
    refinement: Any = None
    amp: str | None = None


@dataclass(frozen=True)
class Study:
    """One pretrained model, its data, and the budget of every arm.

    Attributes
    ----------
    model : nn.Module
    batches : callable
        ``batches(seed)`` gives the training batches of a seed; the same ones for every arm.
    calibration : list of batches
    tests : mapping of name to list of (inputs, labels)
    held_out : list of (inputs, labels)
        Training images that only the choice of learning rates sees.
    epochs : int
    """

    model: nn.Module
    batches: Callable[[int], Any]
    calibration: list[Any]
    tests: Mapping[str, list[tuple[Tensor, Tensor]]]
    held_out: list[tuple[Tensor, Tensor]]
    epochs: int
    rate_signs: float = 3e-2
    rate_rest: float = 1e-3

    def run(self, bench: Bench, work: str, arms: Mapping[str, Arm]) -> None:
        """Choose every arm's codebook rate with equal effort, then measure all seeds."""
        for name, arm in arms.items():
            options = {f"{r:g}": partial(self.held_out_error, arm, r) for r in CODEBOOK_RATES}
            rate = float(bench.choose(work, name, options))
            for seed in bench.seeds:
                bench.measure(work, name, seed, partial(self.measure, arm, rate, seed))

    def reference(self, bench: Bench, work: str) -> None:
        """Measure the model as it is."""
        scores = {f"{name}_top1": top1(self.model, data) for name, data in self.tests.items()}
        bench.measure(work, "fp32", 0, lambda: scores)

    def held_out_error(self, arm: Arm, rate: float) -> float:
        """Train for half the budget; return the error on the held-out training images."""
        trained, _ = self._train(arm, rate, 1000, max(1, self.epochs // 2))
        return 1 - top1(trained, self.held_out)

    def measure(self, arm: Arm, rate: float, seed: int) -> dict[str, float]:
        """Compress, train for the full budget, and score on every test set."""
        trained, facts = self._train(arm, rate, seed, self.epochs)
        return {f"{name}_top1": top1(trained, data) for name, data in self.tests.items()} | facts

    def _train(
        self, arm: Arm, rate: float, seed: int, epochs: int
    ) -> tuple[nn.Module, dict[str, float]]:
        model = copy.deepcopy(self.model)
        result = vq.compress_(
            model, arm.recipe, calibration=self.calibration, importance=arm.importance, seed=seed
        )
        name, data = next(iter(self.tests.items()))
        facts = {f"{name}_clustered_top1": top1(model, data)}
        record = vq.finetune_(
            model,
            self.batches(seed),
            epochs=epochs,
            rates=Rates(signs=self.rate_signs, codebooks=rate, rest=self.rate_rest),
            refinement=arm.refinement,
            teacher=copy.deepcopy(self.model) if arm.teacher else None,
            distillation=Distillation() if arm.teacher else None,
            fixed_signs=arm.fixed_signs,
            amp=arm.amp,
            seed=seed,
        )
        facts |= {"bits_per_weight": result.bits_per_weight, "train_loss": record.losses[-1]}
        if record.signs:
            facts |= {
                "signs_changed": record.signs[-1].changed,
                "signs_frozen": record.signs[-1].frozen,
            }
        return model, facts


@torch.no_grad()
def top1(model: nn.Module, data: list[tuple[Tensor, Tensor]]) -> float:
    """Share of images that a model classifies correctly."""
    model.eval()
    right = sum(int((model(x).argmax(1) == y).sum()) for x, y in data)
    return right / sum(len(y) for _, y in data)
