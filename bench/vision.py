"""What the vision benches share: arms at equal bits, training, and scores paired per image."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from harness import Bench
from numpy.typing import NDArray
from torch import Tensor, nn

import vq
from vq.learning.finetune import Rates
from vq.learning.objective import Distillation, soft_cross_entropy

__all__ = ["Arm", "Study", "right"]


@dataclass(frozen=True)
class Arm:
    """How one arm compresses and trains."""

    recipe: vq.Recipe
    fixed_signs: bool = False
    teacher: Distillation | None = None
    importance: str | None = None
    refinement: Any = None


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
    choice_share : float
        Share of the epochs that a training for the choice of a learning rate takes.
    amp : "bf16" or None
        Precision of the training's activations; scores are always in fp32.
    """

    model: nn.Module
    batches: Callable[[int], Any]
    calibration: list[Any]
    tests: Mapping[str, list[tuple[Tensor, Tensor]]]
    held_out: list[tuple[Tensor, Tensor]]
    epochs: int
    choice_share: float = 0.5
    amp: str | None = None
    rate_signs: float = 3e-2
    rate_rest: float = 1e-3

    def run(
        self, bench: Bench, work: str, arms: Mapping[str, Arm], *, rates_of: str | None = None
    ) -> None:
        """Choose every arm's codebook rate with equal effort, then measure all seeds.

        ``rates_of`` is a work with the same arms whose rates are taken.
        """
        for name, arm in arms.items():
            rate = bench.choose(rates_of or work, name, partial(self.held_out_loss, arm))
            for seed in bench.seeds:
                run = partial(self.measure, arm, rate, seed)
                bench.measure(work, name, seed, run, setting=_setting(arm, rate))

    def reference(self, bench: Bench, work: str) -> None:
        """Measure the model as it is."""
        bench.measure(work, "fp32", 0, lambda: self.scores(self.model))

    @torch.no_grad()
    def held_out_loss(self, arm: Arm, rate: float) -> float:
        """Train for part of the budget; return the loss on the held-out training images.

        With a teacher it is the distance from the teacher, which is what is trained.
        """
        with torch.enable_grad():
            epochs = max(1, int(self.epochs * self.choice_share))
            trained, _ = self._train(arm, rate, 1000, epochs)
        trained.eval()
        if arm.teacher:
            teacher = self.model.eval()
            losses = [soft_cross_entropy(trained(x), teacher(x), 1) for x, _ in self.held_out]
        else:
            losses = [nn.functional.cross_entropy(trained(x), y) for x, y in self.held_out]
        return float(torch.stack(losses).mean())

    def measure(self, arm: Arm, rate: float, seed: int) -> dict[str, Any]:
        """Compress, train for the full budget, and score on every test set."""
        trained, facts = self._train(arm, rate, seed, self.epochs)
        return self.scores(trained) | facts

    def scores(self, model: nn.Module) -> dict[str, NDArray[np.bool_]]:
        """Which images of every test set the model classifies correctly."""
        return {f"{name}_top1": right(model, data) for name, data in self.tests.items()}

    def _train(
        self, arm: Arm, rate: float, seed: int, epochs: int
    ) -> tuple[nn.Module, dict[str, float]]:
        model = copy.deepcopy(self.model)
        result = vq.compress_(
            model, arm.recipe, calibration=self.calibration, importance=arm.importance, seed=seed
        )
        name, data = next(iter(self.tests.items()))
        facts = {f"{name}_clustered_top1": float(right(model, data).mean())}
        record = vq.finetune_(
            model,
            self.batches(seed),
            epochs=epochs,
            rates=Rates(signs=self.rate_signs, codebooks=rate, rest=self.rate_rest),
            refinement=arm.refinement,
            teacher=copy.deepcopy(self.model) if arm.teacher else None,
            distillation=arm.teacher,
            fixed_signs=arm.fixed_signs,
            amp=self.amp,
            seed=seed,
        )
        facts |= {"bits_per_weight": result.bits_per_weight, "train_loss": record.losses[-1]}
        if record.signs:
            facts |= {
                "signs_changed": record.signs[-1].changed,
                "signs_frozen": record.signs[-1].frozen,
            }
        return model, facts


def _setting(arm: Arm, rate: float) -> str:
    if arm.teacher is None:
        return f"rate {rate:g}"
    return f"rate {rate:g}, teacher {arm.teacher.weight:g} at T = {arm.teacher.temperature:g}"


@torch.no_grad()
def right(model: nn.Module, data: list[tuple[Tensor, Tensor]]) -> NDArray[np.bool_]:
    """Which images a model classifies correctly, [images]."""
    model.eval()
    return torch.cat([model(x).argmax(1) == y for x, y in data]).numpy()
