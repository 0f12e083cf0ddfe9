"""W4A8 and W3A6 diffusion, part by part: how much of what the original draws is still drawn.

All linears and convolutions in 4 (3) bits with a scale for each output, what they read in 8 (6);
the first and the last layer, and what they read, in 8. Sampling is DDIM in 20 steps, not guided.

a: static rounding to nearest. b: grids of least squared error. c: and time tables. d: and scales by
time step. From here on weights and steps learn: e1, one time step after another on the original's
course; e2, on MNIST images that noise is added to; e3, serial to parallel; f: and blocks are
distilled; g: and the best quarter of the layers rests. All of these take equally many steps on
equally many rows at equal rates, which nobody has tuned to an arm. ``ssvq``: g with SSVQ of d=4 and
k=16, 2 bits and the codebooks, under the activations of the work.

Judged by 512 images of noise that no calibration has, drawn by the original and by the arm:
``sqnr_db``, the energy of the original's over that of the difference; ``frechet_to_original`` and
``frechet_to_real`` (MNIST's test images), on 64 features of a small classifier. ``eps_mse`` is the
squared error of the predicted noise where the arm itself comes by. A seed is that of calibration,
of all pools and of the noise that is judged on. Seconds are the processor's, of quantising.

--quick: 5 steps, one small pool, 80 images, one seed. The U-Net is trained first, once. Pieces:
``--works ddpm-mnist@w4a8 --arms e1 e3 --seeds 2``; in the end, run it without.
"""

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from alone import alone
from harness import Bench
from torch import Tensor, nn

import rescomp
import vq
from signbook.data.files import data_folder
from signbook.data.pictures import load_pictures
from signbook.diffusion import DDIM, fidelity, frechet_distance, mnist_judge, mnist_unet
from signbook.zoo.ddpm import load_ddpm, noised
from vq.calibration.pools import Forward, serial
from vq.calibration.sampling import Noise
from vq.formats.format import Format
from vq.formats.scalar import PER_OUTPUT
from vq.methods.w4a8_diffusion import Learning, Scheme, w4a8_diffusion_

ARMS = ("a", "b", "c", "d", "e1", "e2", "e3", "f", "g", "ssvq")
#: Bits of weights and of activations.
BITS = {"w4a8": (4, 8), "w3a6": (3, 6)}
#: Noise that is judged on has other seeds than what is learnt from.
OTHERS = 100_000


def _ddpm() -> nn.Module:
    return load_ddpm(data_folder() / "ddpm_mnist" / "ddpm_mnist_starter.pth")


MODELS: dict[str, Callable[[], nn.Module]] = {"ddpm-mnist": _ddpm, "unet-mnist": mnist_unet}
WORKS = tuple(f"{model}@{bits}" for model in MODELS for bits in BITS)


@dataclass(frozen=True)
class Study:
    """How much is done.

    Attributes
    ----------
    steps : int
        Of sampling.
    calibration : int
        Images whose course grids are found on.
    rounds, seeds, batch : int
        Of learning, as :class:`vq.methods.w4a8_diffusion.Learning` has them.
    images : int
        That are judged.
    """

    steps: int = 20
    calibration: int = 16
    rounds: int = 6
    seeds: int = 32
    batch: int = 16
    images: int = 512

    def measured(self, work: str, arm: str, seed: int) -> dict[str, float]:
        """Quantise and judge."""
        name, _, bits = work.partition("@")
        original = MODELS[name]().eval()
        model = copy.deepcopy(original)
        began = time.process_time()
        found = self.quantised(model, arm, *BITS[bits], seed)
        seconds = time.process_time() - began
        return self.judged(model, original, seed) | {"bits_per_weight": found, "seconds": seconds}

    def quantised(
        self, model: nn.Module, arm: str, weight_bits: int, bits: int, seed: int
    ) -> float:
        """Quantise a model in place; bits per weight."""
        kind: int | Format = vq.SSVQ(d=4, k=16, scale="output") if arm == "ssvq" else weight_bits
        recipe = rescomp.default_recipe(model, kind, group=PER_OUTPUT)
        scheme, learning = self.settings(arm, bits)
        if model.classes is not None:  # shifts of blocks depend on it, too; one more is for none
            scheme = replace(scheme, classes=model.classes + 1)
        result = w4a8_diffusion_(
            model, DDIM(self.steps), Noise(model.shape, model.classes), recipe,
            scheme=scheme, learning=learning,
            forward=_forward(model) if learning.policy == "noised" else None,
            seed=seed, progress=False,
        )  # fmt: skip
        return result.bits_per_weight

    def settings(self, arm: str, bits: int) -> tuple[Scheme, Learning]:
        """What an arm is."""
        scheme = Scheme(bits, images=self.calibration)
        if arm in "abc":
            scheme = replace(scheme, rows=1, search=arm != "a", tables=arm == "c")
        if arm in "abcd":
            return scheme, Learning(rounds=0)
        own: dict[str, Any] = {
            "e1": {"policy": "original", "shuffled": False},
            "e2": {"policy": "noised"},
        }.get(arm, {})
        own |= {"distil": 0.0} if arm.startswith("e") else {}
        own |= {"freeze": 0.0} if arm.startswith(("e", "f")) else {}
        return scheme, Learning(self.rounds, self.seeds, self.batch, **own)

    @torch.no_grad()
    def judged(self, model: nn.Module, original: nn.Module, seed: int) -> dict[str, float]:
        """Draw images by both, and say how like each other and real ones they are."""
        draw = Noise(original.shape, original.classes)
        start = draw(self.images, torch.Generator().manual_seed(OTHERS + seed))
        given, wanted = (self.drawn(one, start) for one in (model, original))
        judge = mnist_judge()
        features = [judge.seen(x)[0] for x in (given, wanted)]
        real = judge.seen(load_pictures("mnist", "test").x.float() / 255)[0]
        met = serial(DDIM(self.steps), model, tuple(part[:64] for part in start))
        errors = [(model(*x) - original(*x)).square().mean() for x in met]
        return {
            "sqnr_db": fidelity(given, wanted)["sqnr_db"],
            "frechet_to_original": frechet_distance(*features),
            "frechet_to_real": frechet_distance(features[0], real),
            "eps_mse": float(torch.stack(errors).mean()),
        }

    def drawn(self, model: nn.Module, start: tuple[Tensor, ...]) -> Tensor:
        """Images of a model, with brightness from 0 to 1."""
        parts = zip(*(part.split(128) for part in start), strict=True)
        drawn = [_end(DDIM(self.steps).visits(model, *part)) for part in parts]
        return (torch.cat(drawn) + 0.5).clamp(0, 1)


def _end(visits: Iterator[object]) -> Tensor:
    """What a generator returns."""
    while True:
        try:
            next(visits)
        except StopIteration as end:
            images: Tensor = end.value
            return images


def _forward(model: nn.Module) -> Forward:
    """MNIST's training images, to be noised."""
    images = load_pictures("mnist", "train")
    labels = () if model.classes is None else (images.y.long(),)
    return Forward(images.x.float() / 255 - 0.5, labels, noised)


def main() -> None:
    """Measure every row and print the table."""
    bench = Bench("diffusion", __doc__, seeds=3, works=WORKS, arms=ARMS)
    study = Study(5, 4, 1, 16, 16, 80) if bench.quick else Study()
    for seed in bench.seeds[:1] if bench.quick else bench.seeds:
        for work in bench.works:
            for arm in bench.arms:
                bench.measure(work, arm, seed, partial(alone, study.measured, work, arm, seed))
    bench.finish()


if __name__ == "__main__":
    main()
