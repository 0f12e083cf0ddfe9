"""VQ4DiT on a class-conditional diffusion transformer of MNIST, at about 2.05 bits, without data.

All linears of its blocks, 663,552 weights, are VQ with d=2 and k=16, a codebook each; ``+signs`` is
SSVQ with d=4 and k=16, whose signs learn, too. ``kmeans`` trains nothing. All others train
codebooks, biases and norms alike, on 24 trajectories of 50 steps that the original samples from
noise, 24 images wide: ``vq4dit@N`` with N candidates for every sub-vector; ``control`` is
``vq4dit@1``, where assignments stay as they are, measured once under both names. The rate of
codebooks, and of signs, is chosen for every arm by the rule of ``harness.py``, after half as many
trajectories, by the error on others (``eps_mse``: of the predicted noise, against the original).

Judged by 2,000 images that 50 steps of DDIM draw, from noise and classes that a seed gives and all
arms share, against the 2,000 test images, by the features of a small classifier: ``frechet``,
``precision``, ``recall``, and ``agreement``, the share that shows the class it was to be. Seconds
are the processor's, of training, memory is what the process held most until it drew; ``moved`` is
the share of sub-vectors whose codeword is not the nearest one.

--quick: the transformer of 8x8 digits (``dit-digits@2.05``, 221,184 weights), one seed, 4
trajectories, 450 images, one rate for all.

The model is trained first, in a quarter of an hour, and kept. Then an arm and seed takes about 4
minutes of one core, a choice as long. Pieces: ``--arms vq4dit@3 --seeds 2``, and so on; in the end,
run it without ``--arms``.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from alone import alone
from harness import Bench
from torch import Tensor, nn

import vq
from signbook.data.pictures import load_pictures
from signbook.diffusion import (
    Trajectories,
    digits_dit,
    digits_judge,
    likeness,
    mnist_dit,
    mnist_judge,
    sample,
)
from signbook.zoo.judge import Judge
from vq.methods.vq4dit import RATES, vq4dit_
from vq.recipe.footprint import peak_bytes

ARMS = ("fp32", "kmeans", "control", "vq4dit@1", "vq4dit@2", "vq4dit@3", "vq4dit@3+signs")
STEPS, WIDE = 50, 24
#: Noise for trajectories that are only judged on, and for choices.
OTHERS = 1000
#: Without a choice.
QUICK_RATE = 1e-2
MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Judge]]] = {
    "mnist": (mnist_dit, mnist_judge),
    "digits": (digits_dit, digits_judge),
}


@dataclass(frozen=True)
class Study:
    """How much is done.

    Attributes
    ----------
    pictures : str
        The model's, "mnist" or "digits".
    trajectories : int
        To learn from.
    images : int
        That are drawn.
    """

    pictures: str
    trajectories: int
    images: int

    @property
    def work(self) -> str:
        """Name of the work."""
        return f"dit-{self.pictures}@2.05"

    @property
    def teacher(self) -> nn.Module:
        """The original, trained."""
        return MODELS[self.pictures][0]()

    def measured(self, arm: str, rate: float, seed: int) -> dict[str, float]:
        """Compress, train and judge."""
        teacher = self.teacher
        model, facts = teacher, {}
        if arm != "fp32":
            model, facts = made(arm, teacher, rate, seed, self.trajectories)
            facts["peak_mb"] = peak_bytes() / 1e6
        facts |= self.judged(model, seed)
        return facts | {"eps_mse": error(model, teacher)}

    def judged(self, model: nn.Module, seed: int) -> dict[str, float]:
        """Draw images, and say how like real ones they are."""
        real = load_pictures(self.pictures, "test")
        given = torch.Generator().manual_seed(seed)
        noise = torch.randn(self.images, *real.x.shape[1:], generator=given)
        labels = torch.randint(10, (self.images,), generator=given)
        parts = zip(noise.split(500), labels.split(500), strict=True)
        drawn = torch.cat([sample(model, *part, steps=STEPS) for part in parts])
        return likeness(drawn, real, MODELS[self.pictures][1](), labels)

    def loss_of_choice(self, arm: str, rate: float) -> float:
        """What a rate is chosen by."""
        teacher = self.teacher
        model, _ = made(arm, teacher, rate, OTHERS, self.trajectories // 2)
        return error(model, teacher)


def candidates_of(arm: str) -> int:
    """How many codewords compete for a sub-vector; 0 if nothing trains."""
    return int(arm.partition("@")[2].partition("+")[0] or 0)


def recipe(arm: str) -> vq.Recipe:
    """Codebooks for all linears of the blocks."""
    signs = arm.endswith("+signs")
    return vq.Recipe({"blocks.*": vq.SSVQ(d=4, k=16) if signs else vq.VQ(d=2, k=16)})


def made(
    arm: str, teacher: nn.Module, rate: float, seed: int, trajectories: int
) -> tuple[nn.Module, dict[str, float]]:
    """Compress and, unless it is k-means, train; with bits, seconds, and what moved."""
    model = copy.deepcopy(teacher)
    facts = {"bits_per_weight": vq.compress_(model, recipe(arm), seed=seed).bits_per_weight}
    n = candidates_of(arm)
    if n:
        start = time.process_time()
        result = vq4dit_(
            model, Trajectories(teacher, batch=WIDE, steps=STEPS), teacher, n=n, seed=seed,
            rates=replace(RATES, codebooks=rate, signs=rate), epochs=trajectories, progress=False,
        )  # fmt: skip
        facts["seconds"] = time.process_time() - start
        if "candidates" in result.rules:
            facts["moved"] = result.rules["candidates"][-1]["moved"]
    return model.eval(), facts


@torch.no_grad()
def error(model: nn.Module, teacher: nn.Module) -> float:
    """Mean squared error of the predicted noise, on a trajectory that no training has."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(OTHERS)
        met: list[tuple[Tensor, ...]] = [x for (x,) in Trajectories(teacher, batch=64, steps=STEPS)]
    errors = [(model(*x) - teacher(*x)).square().mean() for x in met]
    return float(torch.stack(errors).mean())


def main() -> None:
    """Measure every row and print the table."""
    bench = Bench("vq4dit", __doc__, seeds=5, arms=ARMS)
    study = Study("digits", 4, 450) if bench.quick else Study("mnist", 24, 2000)
    for seed in bench.seeds[:1] if bench.quick else bench.seeds:
        for arm in bench.arms:
            one = "vq4dit@1" if arm == "control" else arm
            rate = QUICK_RATE
            if candidates_of(one) and not bench.quick:
                rate = bench.choose(study.work, one, partial(alone, study.loss_of_choice, one))
            run = partial(alone, study.measured, one, rate, seed)
            setting = f"rate {rate:g}"
            if arm != one:
                run = partial(
                    bench.measure, study.work, one, seed, run, setting=setting, shown=False
                )
            bench.measure(study.work, arm, seed, run, setting=setting)
    bench.finish()


if __name__ == "__main__":
    main()
