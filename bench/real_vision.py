"""Codebooks on EfficientNet-Lite0, ImageNet, at about 2.3 and 3.3 bits, clustered and trained.

The 1x1 convolutions and the classifier, 96 % of the weights, are SSVQ or VQ with one codebook; stem
and depthwise convolutions are int8. Arms ``vq ssvq`` are clustered, weighed by the second moments
of inputs, and their norms measured again on the 1,000 images of imagenet_sample, one of each class,
of 224 pixels. ``fixed-signs`` is ``ssvq`` until it trains. ``+trained`` (2.3 bits alone) learns
from fp32's logits on 800 images of imagenet_sample: 128 pixels, augmented, 1,150 batches of 32;
then norms are measured as before. No arm sees labels. The rate of codebooks is chosen for every arm
by the rule of ``harness.py``, after 100 batches, by the distance to fp32 on the 200 images of
imagenet_sample that no training sees; signs have thrice that rate, all else 1e-3.

Judged on the 650 images of imagenet_val, whole, of 224 pixels: ``top1`` and ``agreement``, the
share of fp32's own answers. fp32 gets 82 %, more than on all 50,000, so that only differences
count, which are paired by image (``image_se``). ``clustered_top1`` of a trained arm is where it
began.

--quick: 2.3 bits, clustered, one seed, norms on 200 images.

A trained arm and seed takes about 20 minutes of one core, a choice as long. Pieces: ``--works
lite0@2.3 --arms ssvq+trained --seeds 1``, and so on; training that was stopped goes on from its
checkpoint in out/bench/real_vision. In the end, run it without ``--works`` and ``--arms``. glibc
gives memory back too early for large convolutions: MALLOC_MMAP_THRESHOLD_=4294967296 and
MALLOC_TRIM_THRESHOLD_=4294967296 save up to half of the time.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import Bench
from torch import Tensor, nn

import vq
from signbook.data.photos import PhotoBatches, Photos, load_packed
from signbook.zoo.efficientnet import lite0
from vq.calibration.norms import reestimate_norms_
from vq.learning.checkpoint import clear
from vq.learning.objective import soft_cross_entropy

CODEBOOKS: Mapping[str, Mapping[str, vq.SSVQ | vq.VQ]] = {
    "lite0@2.3": {
        "ssvq": vq.SSVQ(d=8, k=256, shared="all"),
        "vq": vq.VQ(d=4, k=256, shared="all"),
    },
    "lite0@3.3": {
        "ssvq": vq.SSVQ(d=4, k=256, shared="all"),
        "vq": vq.VQ(d=2, k=64, shared="all"),
    },
}
CLUSTERED = ("fp32", "vq", "ssvq", "fixed-signs")
TRAINED = ("vq+trained", "ssvq+trained", "fixed-signs+trained")
#: The work whose arms are trained.
TRAINS = "lite0@2.3"
SIZE, LEARNING_SIZE, BATCH = 224, 128, 32
#: One in so many images of imagenet_sample chooses rates.
HELD_OUT = 5
EPOCHS, CHOICE_EPOCHS = 46, 4  # of 25 steps
SIGN_RATE, REST_RATE = 3.0, 1e-3
TEACHER = vq.Distillation(weight=1)


class Some(Photos):
    """Some images of a set."""

    def __init__(self, photos: Photos, numbers: list[int]) -> None:
        self.y = photos.y[numbers]
        self._photos, self._numbers = photos, numbers

    def decode(self, number: int) -> Any:
        """Give one image as Pillow's, in RGB."""
        return self._photos.decode(self._numbers[number])


@dataclass(frozen=True)
class Data:
    """Images by what they are for.

    Attributes
    ----------
    calibration, test : list of (images, labels)
        Of 224 pixels.
    pool : Photos
        Images to train with.
    held_out : list of (images, labels)
        Of 128 pixels.
    """

    calibration: list[tuple[Tensor, Tensor]]
    test: list[tuple[Tensor, Tensor]]
    pool: Photos
    held_out: list[tuple[Tensor, Tensor]]

    def batches(self, seed: int) -> PhotoBatches:
        """Training batches."""
        return PhotoBatches(
            self.pool, size=LEARNING_SIZE, batch=BATCH, shuffle=True, augment=True, seed=seed
        )


def load(*, quick: bool) -> Data:
    """Read all images; those to train with are decoded when their turn comes."""
    sample = load_packed("imagenet_sample/imagenet_sample.npz")
    few = load_packed("imagenet_sample/imagenet_sample.npz", 200 if quick else None)
    test = load_packed("imagenet_val/imagenet_val650.npz")
    held = Some(sample, list(range(0, len(sample), HELD_OUT)))
    return Data(
        list(PhotoBatches(few, size=SIZE, batch=BATCH)),
        list(PhotoBatches(test, size=SIZE, batch=BATCH)),
        Some(sample, [i for i in range(len(sample)) if i % HELD_OUT]),
        [] if quick else list(PhotoBatches(held, size=LEARNING_SIZE, batch=BATCH)),
    )


def recipe(kind: vq.SSVQ | vq.VQ) -> vq.Recipe:
    """Codebooks where outputs see many inputs, int8 elsewhere."""
    narrow = dict.fromkeys(("stem", "blocks.*.depthwise"), vq.Int8())
    wide = dict.fromkeys(("blocks.*.expand", "blocks.*.project", "head", "fc"), kind)
    return vq.Recipe({**narrow, **wide})


@dataclass(frozen=True, eq=False)
class Vision:
    """The model, the images, and what is done to it."""

    model: nn.Module
    data: Data

    def compressed(self, kind: vq.SSVQ | vq.VQ, seed: int) -> tuple[nn.Module, float]:
        """Cluster the model; return it with its bits per weight, everything counted."""
        model = copy.deepcopy(self.model)
        result = vq.compress_(
            model, recipe(kind), calibration=self.data.calibration, importance="inputs", seed=seed
        )
        return model, result.bits_per_weight

    @cache  # noqa: B019 - there is one in a process
    def clustered(self, kind: vq.SSVQ | vq.VQ, seed: int) -> dict[str, Any]:
        """Cluster and judge."""
        model, bits = self.compressed(kind, seed)
        return self.scores(model) | {"bits_per_weight": bits}

    def trained(
        self, kind: vq.SSVQ | vq.VQ, rate: float, seed: int, folder: Path, *, fixed_signs: bool
    ) -> dict[str, Any]:
        """Cluster, train from where a run that was stopped has come to, and judge."""
        model, bits = self.compressed(kind, seed)
        facts = {"bits_per_weight": bits, "clustered_top1": self.scores(model)["top1"].mean()}
        batches = self.data.batches(seed)
        record = self.train_(model, batches, EPOCHS, rate, seed, folder, fixed_signs=fixed_signs)
        reestimate_norms_(model, self.data.calibration)
        facts["train_loss"] = record.losses[-1]
        if record.signs:
            facts["signs_changed"] = record.signs[-1].changed
        return self.scores(model) | facts

    def train_(
        self,
        model: nn.Module,
        batches: PhotoBatches,
        epochs: int,
        rate: float,
        seed: int,
        folder: Path,
        *,
        fixed_signs: bool,
    ) -> vq.FinetuneResult:
        """Train a clustered model to give fp32's logits."""
        return vq.finetune_(
            model,
            batches,
            epochs=epochs,
            rates=vq.Rates(signs=SIGN_RATE * rate, codebooks=rate, rest=REST_RATE),
            teacher=self.model,
            distillation=TEACHER,
            fixed_signs=fixed_signs,
            checkpoint_dir=folder,
            checkpoint_steps=50,
            resume=True,
            seed=seed,
        )

    def held_out_loss(
        self, kind: vq.SSVQ | vq.VQ, folder: Path, rate: float, *, fixed_signs: bool
    ) -> float:
        """Distance to fp32 on held-out images after a short training."""
        model, _ = self.compressed(kind, 1000)
        batches = self.data.batches(1000)
        place = folder / f"{rate:g}"
        self.train_(model, batches, CHOICE_EPOCHS, rate, 1000, place, fixed_signs=fixed_signs)
        clear(place)
        model.eval()
        with torch.no_grad():
            losses = [soft_cross_entropy(model(x), self.model(x), 1) for x, _ in self.data.held_out]
        return float(torch.stack(losses).mean())

    @torch.no_grad()
    def scores(self, model: nn.Module) -> dict[str, np.ndarray[Any, np.dtype[np.bool_]]]:
        """Which test images a model gets right, and which as fp32 does."""
        model.eval()
        found = torch.cat([model(x).argmax(1) for x, _ in self.data.test])
        wanted = torch.cat([y for _, y in self.data.test])
        return {
            "top1": (found == wanted).numpy(),
            "agreement": (found == self.answers()).numpy(),
        }

    @cache  # noqa: B019 - there is one in a process
    @torch.no_grad()
    def answers(self) -> Tensor:
        """What fp32 says of the test images."""
        return torch.cat([self.model(x).argmax(1) for x, _ in self.data.test])


def measure(bench: Bench, vision: Vision, work: str, arm: str, seed: int) -> None:
    """Measure one arm, with its rate chosen if it trains."""
    name, _, trains = arm.partition("+")
    if arm == "fp32":
        bench.measure(work, arm, seed, lambda: vision.scores(vision.model))
        return
    fixed = name == "fixed-signs"
    kind = CODEBOOKS[work]["ssvq" if fixed else name]
    if not trains:
        bench.measure(work, arm, seed, partial(vision.clustered, kind, seed))
        return
    folder = Path("out/bench") / bench.name / arm
    loss = partial(vision.held_out_loss, kind, folder / "choice", fixed_signs=fixed)
    rate = bench.choose(work, arm, loss)
    own = folder / f"{rate:g}-{seed}"
    run = partial(vision.trained, kind, rate, seed, own, fixed_signs=fixed)
    bench.measure(work, arm, seed, run, setting=f"rate {rate:g}")
    clear(own)


def main() -> None:
    """Measure every row and print the table."""
    bench = Bench(
        "real_vision", __doc__, seeds=3, works=tuple(CODEBOOKS), arms=(*CLUSTERED, *TRAINED)
    )
    torch.set_num_threads(1)
    bench.seeds = bench.seeds[:1] if bench.quick else bench.seeds
    vision = Vision(lite0().eval(), load(quick=bench.quick))
    for work in [TRAINS] if bench.quick else bench.works:
        known = (*CLUSTERED, *TRAINED) if work == TRAINS and not bench.quick else CLUSTERED
        arms = [arm for arm in known if arm in bench.arms]
        for seed in bench.seeds:
            for arm in arms:
                if arm != "fp32" or seed == bench.seeds[0]:
                    measure(bench, vision, work, arm, seed)
        for ours, other in (
            ("ssvq", "vq"), ("ssvq+trained", "ssvq"), ("ssvq+trained", "vq+trained"),
            ("ssvq+trained", "fixed-signs+trained"),
        ):  # fmt: skip
            if {ours, other} <= set(arms):
                bench.difference(work, ours, other, same_images=True)
    bench.finish()


if __name__ == "__main__":
    main()
