"""A run in a process of its own, for tests that kill it behind its first block."""

import time

import torch

from tests.vq.perturbation import models
from vq.activations.tokens import ActivationQuantizer
from vq.learning.checkpoint import StageCheckpoints
from vq.methods.omniquant import omniquant_
from vq.perturbation.composition import Perturb
from vq.perturbation.mask import Mask


def run(folder, *, resume=False, **settings):
    model = models.before()
    linears = [name for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)]
    rounding = ActivationQuantizer(model, linears, 4)
    omniquant_(
        model, models.rows(), models.LINEARS, perturb=Perturb(Mask(2)), activations=rounding,
        epochs=2, progress=False, checkpoint_dir=folder, resume=resume, **settings,
    )  # fmt: skip
    return model


def main(folder, resume=False):
    save = StageCheckpoints.save

    def halting(self, stage, state):
        save(self, stage, state)
        print("saved", flush=True)
        time.sleep(600)

    if not resume:
        StageCheckpoints.save = halting
    torch.save(run(folder, resume=resume, window=2).state_dict(), folder / "final.pt")
