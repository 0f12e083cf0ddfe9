"""A training run in a process of its own, for tests that kill it.

Everything random that a run can depend on is in it: dropout, a shuffling loader with its own
generator, and augmentation from the global states of torch, numpy and Python.
"""

import random
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import vq
from vq import SSVQ, VQ, Recipe
from vq.learning.finetune import Rates
from vq.learning.objective import Distillation
from vq.learning.rules.refinement import Refinement
from vq.learning.rules.signs import Freezing

STEPS = 60  # 6 epochs of 19 batches, two to a step but the last


class Noisy(Dataset):
    """Fixed inputs plus noise that differs at every look."""

    def __init__(self) -> None:
        self.x = torch.randn(152, 16, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        noise = torch.rand(()) + np.random.random() + random.random()
        return self.x[i] * (1 + 0.1 * noise.float()), int(self.x[i].reshape(4, 4).sum(1).argmax())


def build() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    teacher = nn.Sequential(
        nn.Linear(16, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4),
    )  # fmt: skip
    model = nn.Sequential(
        nn.Linear(16, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4),
    )  # fmt: skip
    model.load_state_dict(teacher.state_dict())
    vq.compress_(model, Recipe({"0": SSVQ(d=8, k=8), "4": VQ(d=4, k=16)}))
    return model, teacher


def run(
    folder: Path | None, *, resume: bool = False, slow: float = 0, workers: int = 0, **settings
) -> nn.Module:
    model, teacher = build()
    loader = DataLoader(
        Noisy(),
        batch_size=8,
        shuffle=True,
        generator=torch.Generator().manual_seed(3),
        num_workers=workers,
    )

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        time.sleep(slow)
        return nn.functional.cross_entropy(outputs, targets)

    settings = {"seed": 5, "checkpoint_steps": 1, **settings}
    model.result = vq.finetune_(
        model,
        loader,
        epochs=6,
        teacher=teacher,
        distillation=Distillation(weight=0.3),
        freezing=Freezing(interval_steps=3, momentum=0.3, threshold_end=0.01, vote="ema"),
        refinement=Refinement(interval_steps=4),
        rates=Rates(signs=0.2),
        accumulate=2,
        clip_norm=5.0,
        loss=loss,
        checkpoint_dir=folder,
        resume=resume,
        **settings,
    )
    return model


def main(folder: Path) -> None:
    print("started", flush=True)
    model = run(folder, resume=True, slow=0.002)
    torch.save(model.state_dict(), folder / "final.pt")
