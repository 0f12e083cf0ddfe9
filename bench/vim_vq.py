"""ViM-VQ on a bidirectional selective-state-space classifier of MNIST, at about 1 and 2 bits.

The projections of its blocks, 70,656 weights, have a codebook in common (at 2 bits the narrow ones
another): VQ with d=4 or 2 and k=16; ``+signs`` is SSVQ with d=8, k=2 and parity, or d=4 and k=16,
in no more bits. ``kmeans`` trains nothing. All others train codebooks, biases and norms alike, on
512 images without labels, 320 batches of 32, by the original's blocks and logits: ``control`` with
assignments that stay as they are, ``vim-vq`` with 4 candidates (2 where there are 2 codewords), of
which the poorest are replaced, and confirmation step by step; ``once`` is ``vim-vq`` without it,
rounded in the end. The rate of codebooks, and of signs, is chosen for every arm by the rule of
``harness.py``, by the divergence of logits on 500 images that no training sees.

Judged on the 2,000 test images, paired by image: ``top1``, and ``kl`` to the original in nats.
Seconds are the processor's, of training; memory is what the process held most until it was judged;
``moved`` is the share of sub-vectors whose codeword is not the one it was, before the last step.

--quick: the classifier of 8x8 digits (``ssm-digits@1``, ``ssm-digits@2``, 17,408 weights), one
seed, a quarter of the steps, one rate for all.

The model is trained first, in ten minutes, and kept. Then an arm, work and seed takes about 2
minutes of one core, a choice twice as long. Pieces: ``--works ssm@1 --arms vim-vq --seeds 2``, and
so on; in the end, run it without them.
"""

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from alone import alone
from harness import Bench
from torch import Tensor, nn
from torch.utils.data import DataLoader

import vq
from signbook.data.images import load_mnist
from signbook.zoo.digits import load_digits
from signbook.zoo.vim import trained_digits, trained_mnist
from vq.learning.objective import soft_cross_entropy
from vq.methods.vim_vq import RATES, vim_vq_
from vq.recipe.footprint import peak_bytes

#: Settings of :func:`vim_vq_`, for arms that train.
ARMS: Mapping[str, Mapping[str, Any] | None] = {
    "fp32": None,
    "kmeans": None,
    "control": {"n": 1, "replace_steps": None},
    "once": {"forced": None, "threshold": 1.0},
    "vim-vq": {},
    "vim-vq+signs": {},
}
WIDE, NARROW = ("blocks.*.in_proj", "blocks.*.out_proj"), ("blocks.*.x_proj",)
#: Formats of the wide and the narrow projections, by bits and by whether signs are split.
BOOKS = {
    (1, False): (vq.VQ(d=4, k=16, shared="all"),) * 2,
    (1, True): (vq.SSVQ(d=8, k=2, parity=True, shared="all"),) * 2,
    (2, False): (vq.VQ(d=2, k=16, shared="wide"), vq.VQ(d=2, k=32, shared="narrow")),
    (2, True): (vq.SSVQ(d=4, k=16, shared="all"),) * 2,
}
CANDIDATES = 4
LEARNT, HELD_OUT, BATCH = 512, 500, 32
EPOCHS, QUICK_EPOCHS, QUICK_RATE = 20, 5, 1e-2
#: The seed of choices.
CHOICE = 1000


@dataclass(frozen=True)
class Study:
    """One model at one number of bits.

    Attributes
    ----------
    pictures : str
        The model's, "mnist" or "digits".
    bits : int
    epochs : int
        Of 16 steps.
    """

    pictures: str
    bits: int
    epochs: int

    @property
    def work(self) -> str:
        """Name of the work."""
        return (
            f"ssm@{self.bits}" if self.pictures == "mnist" else f"ssm-{self.pictures}@{self.bits}"
        )

    def data(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images to learn from and to choose by; those to judge by, and their labels."""
        if self.pictures == "digits":
            digits = load_digits()
            train, test, labels = digits.train_x, digits.test_x, digits.test_y
        else:
            images, judged = load_mnist("train"), load_mnist("test")
            train, test, labels = images.x / 255, judged.x / 255, judged.y
        return train[:LEARNT], train[LEARNT : LEARNT + HELD_OUT], test, labels

    def teacher(self) -> nn.Module:
        """The original, trained."""
        return trained_digits() if self.pictures == "digits" else trained_mnist()

    def recipe(self, arm: str) -> vq.Recipe:
        """Codebooks for the projections."""
        wide, narrow = BOOKS[self.bits, arm.endswith("+signs")]
        return vq.Recipe(dict.fromkeys(WIDE, wide) | dict.fromkeys(NARROW, narrow))

    def settings(self, arm: str) -> Mapping[str, Any] | None:
        """What :func:`vim_vq_` is told; of two codewords, both are candidates."""
        k = BOOKS[self.bits, arm.endswith("+signs")][0].k
        own = ARMS[arm]
        return own if own is None else {"n": min(CANDIDATES, k), **own}

    def made(
        self, arm: str, teacher: nn.Module, images: Tensor, rate: float, seed: int
    ) -> tuple[nn.Module, dict[str, float]]:
        """Compress and, if the arm does, train; with bits, seconds, and what moved."""
        model = copy.deepcopy(teacher)
        result = vq.compress_(model, self.recipe(arm), seed=seed)
        facts = {"bits_per_weight": result.bits_per_weight}
        settings = self.settings(arm)
        if settings is not None:
            start = time.process_time()
            record = vim_vq_(
                model, DataLoader(images, BATCH, shuffle=True), teacher, epochs=self.epochs,
                rates=replace(RATES, codebooks=rate, signs=rate), seed=seed, progress=False,
                **settings,
            )  # fmt: skip
            facts["seconds"] = time.process_time() - start
            if "candidates" in record.rules:
                facts["moved"] = record.rules["candidates"][-1]["moved"]
        return model.eval(), facts

    def measured(self, arm: str, rate: float, seed: int) -> dict[str, Any]:
        """Compress, train and judge."""
        teacher = self.teacher()
        learnt, _, test, labels = self.data()
        model, facts = teacher, {}
        if arm != "fp32":
            model, facts = self.made(arm, teacher, learnt, rate, seed)
            facts["peak_mb"] = peak_bytes() / 1e6
        right: np.ndarray[Any, Any] = (answers(model, test).argmax(1) == labels).numpy()
        return {"top1": right, "kl": divergence(model, teacher, test), **facts}

    def loss_of_choice(self, arm: str, rate: float) -> float:
        """What a rate is chosen by."""
        teacher = self.teacher()
        learnt, held_out, _, _ = self.data()
        model, _ = self.made(arm, teacher, learnt, rate, CHOICE)
        return divergence(model, teacher, held_out)


@torch.no_grad()
def answers(model: nn.Module, images: Tensor) -> Tensor:
    """Logits of any number of images."""
    return torch.cat([model(part) for part in images.split(500)])


@torch.no_grad()
def divergence(model: nn.Module, teacher: nn.Module, images: Tensor) -> float:
    """KL of a model's answers to its original's, in nats."""
    return float(soft_cross_entropy(answers(model, images), answers(teacher, images), 1.0))


def main() -> None:
    """Measure every row and print the table."""
    bench = Bench("vim_vq", __doc__, seeds=5, works=("ssm@1", "ssm@2"), arms=tuple(ARMS))
    for name in bench.works:
        bits = int(name[-1])
        study = Study("digits", bits, QUICK_EPOCHS) if bench.quick else Study("mnist", bits, EPOCHS)
        bench.seeds = bench.seeds[:1] if bench.quick else bench.seeds
        for seed in bench.seeds:
            for arm in bench.arms:
                if arm == "fp32" and seed:
                    continue
                rate = QUICK_RATE
                if ARMS[arm] is not None and not bench.quick:
                    loss = partial(alone, study.loss_of_choice, arm)
                    rate = bench.choose(study.work, arm, loss)
                run = partial(alone, study.measured, arm, rate, seed)
                bench.measure(study.work, arm, seed, run, setting=f"rate {rate:g}")
        for one, other in (("vim-vq", "control"), ("vim-vq", "once"), ("vim-vq+signs", "vim-vq")):
            if {one, other} <= set(bench.arms):
                bench.difference(study.work, one, other, same_images=True)
    bench.finish()


if __name__ == "__main__":
    main()
