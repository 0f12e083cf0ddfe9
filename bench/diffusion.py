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
squared error of the predicted noise where the arm itself comes by (64 images). A seed is that of
calibration, of all pools and of the noise that is judged on. Seconds are the processor's, of
quantising.

Of d and g with 8-bit activations, 16 of the images are drawn by the integer graph as well, which
rounds what layers give, too: ``integer_sqnr_db``, and by how much that is below the same images of
the software, ``integer_loss_db``.

``tables`` of ``ddpm-mnist@fp32`` and ``unet-mnist@fp32`` is the original with time tables: how much
its noise differs (``greatest_difference``), multiply-accumulates of an image with and without, and
seconds of an image with and without, the least of several runs that take turns.

--quick: 5 steps, one small pool, 80 images, one seed. The U-Net is trained first, once. Pieces:
``--works ddpm-mnist@w4a8 --arms e1 e3 --seeds 2``; in the end, run it without. An original draws
once for all arms of a process: pieces of one network are best run by one.
"""

import copy
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from harness import Bench
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import rescomp
import vq
from signbook.data.files import data_folder
from signbook.data.pictures import load_pictures
from signbook.diffusion import DDIM, fidelity, frechet_distance, mnist_judge, mnist_unet
from signbook.diffusion.sampler import end_of
from signbook.evaluation import load_integer
from signbook.zoo.ddpm import load_ddpm, noised
from vq.activations.timetables import tabulate_
from vq.calibration.pools import Forward
from vq.calibration.sampling import Noise
from vq.formats.format import Format
from vq.formats.scalar import PER_OUTPUT
from vq.integer.steps.build import add_steps
from vq.methods.w4a8_diffusion import Learning, Scheme, w4a8_diffusion_

ARMS = ("a", "b", "c", "d", "e1", "e2", "e3", "f", "g", "ssvq")
#: Bits of weights and of activations.
BITS = {"w4a8": (4, 8), "w3a6": (3, 6)}
#: Noise that is judged on has other seeds than what is learnt from.
OTHERS = 100_000
#: Images that are drawn at a time.
WIDTH = 64
#: Arms that the integer graph draws of, and how many images.
INTEGER, INTEGER_IMAGES = "dg", 16
#: Runs that the least time is of.
RUNS = 5


def _ddpm() -> nn.Module:
    return load_ddpm(data_folder() / "ddpm_mnist" / "ddpm_mnist_starter.pth")


MODELS: dict[str, Callable[[], nn.Module]] = {"ddpm-mnist": _ddpm, "unet-mnist": mnist_unet}
WORKS = tuple(f"{model}@{bits}" for model in MODELS for bits in BITS)
TABLES = tuple(f"{model}@fp32" for model in MODELS)


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
        goal = _goal(self, name, seed)
        model = copy.deepcopy(goal.original)
        began = time.process_time()
        found = self.quantised(model, arm, *BITS[bits], seed)
        seconds = time.process_time() - began
        judged = self.judged(model, goal)
        if arm in INTEGER and BITS[bits][1] == 8:
            judged |= self.in_integers(model, goal)
        return judged | {"bits_per_weight": found, "seconds": seconds}

    def quantised(
        self, model: nn.Module, arm: str, weight_bits: int, bits: int, seed: int
    ) -> float:
        """Quantise a model in place; bits per weight."""
        kind: int | Format = vq.SSVQ(d=4, k=16, scale="output") if arm == "ssvq" else weight_bits
        recipe = rescomp.default_recipe(model, kind, group=PER_OUTPUT)
        scheme, learning = self.settings(arm, bits)
        scheme = replace(scheme, classes=_classes(model))  # shifts of blocks depend on it, too
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
    def judged(self, model: nn.Module, goal: "Goal") -> dict[str, float]:
        """Draw images, and say how like the original's and real ones they are."""
        first, *others = goal.parts
        with _compared(model, goal.original) as errors:
            given = [self.drawn(model, first)]
        given += [self.drawn(model, part) for part in others]
        images = torch.cat(given)
        features = mnist_judge().seen(images)[0]
        return {
            "sqnr_db": fidelity(images, goal.images)["sqnr_db"],
            "frechet_to_original": frechet_distance(features, goal.features),
            "frechet_to_real": frechet_distance(features, _real()),
            "eps_mse": float(torch.stack(errors).mean()),
        }

    @torch.no_grad()
    def in_integers(self, model: nn.Module, goal: "Goal") -> dict[str, float]:
        """What rounding all that the hardware rounds costs."""
        start = tuple(part[:INTEGER_IMAGES] for part in goal.parts[0])
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.vq.safetensors"
            vq.save(model, file)
            add_steps(
                file, goal.original, DDIM(self.steps), goal.draw,
                classes=goal.classes or 0, progress=False,
            )  # fmt: skip
            given = self.drawn(load_integer(file), start)
        wanted = goal.images[: len(given)]
        integer = fidelity(given, wanted)["sqnr_db"]
        software = fidelity(self.drawn(model, start), wanted)["sqnr_db"]
        return {"integer_sqnr_db": integer, "integer_loss_db": software - integer}

    @torch.no_grad()
    def tabled(self, name: str, seed: int) -> dict[str, float]:
        """What time tables save of one image's sampling, and change."""
        original = MODELS[name]().eval()
        model, sampler = copy.deepcopy(original), DDIM(self.steps)
        draw = Noise(original.shape, original.classes)
        start = draw(1, torch.Generator().manual_seed(OTHERS + seed))
        calls = list(sampler.visits(original, *start))
        tabulate_(model, sampler.steps, calls[0], classes=_classes(original))
        difference = max(float((model(*x) - original(*x)).abs().max()) for x in calls)
        found = {"greatest_difference": difference}
        seconds: dict[str, list[float]] = {"with": [], "without": []}
        for which, one in [("with", model), ("without", original)] * RUNS:
            began = time.process_time()
            self.drawn(one, start)
            seconds[which].append(time.process_time() - began)
        for which, one in (("with", model), ("without", original)):
            with FlopCounterMode(display=False) as counter:
                self.drawn(one, start)
            found[f"macs_{which}"] = counter.get_total_flops() / 2
            found[f"seconds_{which}"] = min(seconds[which])
        return found

    def drawn(self, model: nn.Module, start: tuple[Tensor, ...]) -> Tensor:
        """Images of a model, with brightness from 0 to 1."""
        return (end_of(DDIM(self.steps).visits(model, *start)) + 0.5).clamp(0, 1)


@dataclass(frozen=True, eq=False)
class Goal:
    """What an original draws of the noise that is judged on.

    Attributes
    ----------
    original : nn.Module
    draw : Noise
    parts : list of tuple of [B, ...] tensors
        The noise, and classes.
    images : [N, 1, H, W] tensor
    features : [N, D] tensor
    """

    original: nn.Module
    draw: Noise
    parts: list[tuple[Tensor, ...]]
    images: Tensor
    features: Tensor

    @property
    def classes(self) -> int | None:
        """That the network is told of, none of them among these."""
        return _classes(self.original)


@cache
@torch.no_grad()
def _goal(study: Study, name: str, seed: int) -> Goal:
    original = MODELS[name]().eval()
    draw = Noise(original.shape, original.classes)
    start = draw(study.images, torch.Generator().manual_seed(OTHERS + seed))
    parts = list(zip(*(part.split(WIDTH) for part in start), strict=True))
    images = torch.cat([study.drawn(original, part) for part in parts])
    return Goal(original, draw, parts, images, mnist_judge().seen(images)[0])


@cache
def _real() -> Tensor:
    """Features of MNIST's test images."""
    return mnist_judge().seen(load_pictures("mnist", "test").x.float() / 255)[0]


def _classes(model: nn.Module) -> int | None:
    """Those that a network is told of: one more is for none."""
    return None if model.classes is None else model.classes + 1


@contextmanager
def _compared(model: nn.Module, original: nn.Module) -> Iterator[list[Tensor]]:
    """Squared error of the predicted noise, of every call in the block."""
    errors: list[Tensor] = []

    def compare(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        errors.append((output - original(*inputs)).square().mean())

    handle = model.register_forward_hook(compare)
    try:
        yield errors
    finally:
        handle.remove()


def _forward(model: nn.Module) -> Forward:
    """MNIST's training images, to be noised."""
    images = load_pictures("mnist", "train")
    labels = () if model.classes is None else (images.y.long(),)
    return Forward(images.x.float() / 255 - 0.5, labels, noised)


def main() -> None:
    """Measure every row and print the table."""
    bench = Bench("diffusion", __doc__, seeds=3, works=WORKS + TABLES, arms=(*ARMS, "tables"))
    torch.set_num_threads(1)
    study = Study(5, 4, 1, 16, 16, 80) if bench.quick else Study()
    for work in bench.works if "tables" in bench.arms else ():
        if work in TABLES:
            run = partial(study.tabled, work.partition("@")[0], 0)
            bench.measure(work, "tables", 0, run)
    arms = [arm for arm in bench.arms if arm in ARMS]
    for seed in bench.seeds[:1] if bench.quick else bench.seeds:
        for work in (work for work in bench.works if work in WORKS):
            for arm in arms:
                bench.measure(work, arm, seed, partial(study.measured, work, arm, seed))
    bench.finish()


if __name__ == "__main__":
    main()
