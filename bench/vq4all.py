"""Four pretrained CIFAR-10 networks whose weights all come from one codebook, at about 1.7 bits.

ResNet-20, ResNet-44, ResNet-8 and the Tiniest CNN; all convolutions and linears. Arms:
``per-layer`` has VQ with a codebook in every layer (d=4, k by the layer's size); all others one
universal book, sampled from the density of the four networks' sub-vectors and then fixed:
``vq4all`` (d=4, k=64) learns which codewords it takes, ``control`` is the same with one candidate,
so that assignments stay where they are nearest, and ``vq4all+signs`` has a book of magnitudes (d=8,
k=16) and learns signs. All arms train alike, by the task and the originals' blocks, codebooks
(``per-layer``), scales, norms and biases too: 3,805 exact and 9,000 JPEG training images,
augmented; 1,000 more choose the rate of ``per-layer``. Bits count everything but biases and norms,
padding too, the book once for all four.

Judged on the 761 exact test images, paired by image: ``top1`` of ``cifar10x4`` is the mean of the
four. ``clustered`` is top1 before training. Seconds are the processor's, of training since it was
last begun; memory is what a network's process held most until it was judged.

--quick: one seed, a tenth of the steps, ResNet-8 and the Tiniest CNN alone.

An arm and seed takes about 15 minutes of one core. Pieces: ``--arms vq4all --seeds 1``, and so on.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from alone import alone
from harness import Bench
from resnet20 import training_images
from torch import Tensor, nn

import vq
from signbook.data.files import data_file
from signbook.data.images import ImageBatches, Images, load_cifar10_exact
from signbook.zoo.resnet import load_resnet20, load_resnet44
from signbook.zoo.resnet8 import load_resnet8
from signbook.zoo.tiniest import load_tiniest
from vq.container import Geometry, account
from vq.formats.model import compressed_layers
from vq.learning.checkpoint import clear
from vq.methods.vq4all import RATES, vq4all_
from vq.recipe.footprint import peak_bytes
from vq.universal.bits import universal_bits
from vq.universal.door import UniversalCodebook

Loader = Callable[[Path], nn.Module]
WORK = "cifar10x4"
ARMS = ("fp32", "per-layer", "control", "vq4all", "vq4all+signs")
NETWORKS: dict[str, tuple[Loader, str]] = {
    "resnet20": (load_resnet20, "resnet_cifar10/resnet20-*.th"),
    "resnet44": (load_resnet44, "resnet_cifar10/resnet44-*.th"),
    "resnet8": (load_resnet8, "mlperf_tiny/resnet8_cifar10.h5"),
    "tiniest": (load_tiniest, "tiniest_cifar10/tiniest.pt"),
}
QUICK = ("resnet8", "tiniest")
BOOKS = {"vq": vq.VQ(d=4, k=64), "ssvq": vq.SSVQ(d=8, k=16)}
#: Codewords of a layer's own codebook, by the least weights of the layer.
OWN_K = {9_000: 64, 4_000: 32, 0: 16}
CANDIDATES = 4
#: Where the networks of all arms are left; ``rom.py`` takes them from there.
LEARNT = Path("out/bench/vq4all")
BATCH, EPOCHS, CHOICE_EPOCHS = 64, 3, 1  # of 200 steps


@dataclass(frozen=True, eq=False)
class Study:
    """Networks and images.

    Attributes
    ----------
    networks : dict of name to nn.Module
    train : Images
    held_out, test : list of (images, labels)
    epochs : int
    folder : Path
        For the networks of all arms, and for where a run that was stopped has come to.
    """

    networks: dict[str, nn.Module]
    train: Images
    held_out: list[tuple[Tensor, Tensor]]
    test: list[tuple[Tensor, Tensor]]
    epochs: int
    folder: Path

    def batches(self, seed: int) -> ImageBatches:
        """Training batches."""
        return ImageBatches(self.train, batch=BATCH, shuffle=True, augment=True, seed=seed)

    @cache  # noqa: B019 - there is one in a process
    def book(self, kind: str, seed: int) -> UniversalCodebook:
        """The codebook of all networks."""
        return vq.universal_codebook(self.networks, BOOKS[kind], seed=seed)

    def recipe(self, name: str, arm: str, seed: int) -> vq.Recipe:
        """Formats of a network."""
        if arm != "per-layer":
            kind = _kind_of(arm)
            book = self.book(kind, seed).book
            return vq.Recipe({"*": replace(BOOKS[kind], codebook=book)})
        layers = _layers_of(self.networks[name])
        return vq.Recipe({g.name: vq.VQ(d=4, k=_own_k(g.weights)) for g in layers})

    def trained(
        self,
        name: str,
        arm: str,
        rates: vq.Rates,
        seed: int,
        epochs: int,
        folder: Path | None = None,
    ) -> tuple[nn.Module, dict[str, Any]]:
        """Compress a network and train it, from where a run that was stopped has come to."""
        model = copy.deepcopy(self.networks[name])
        start = list(self.batches(seed))[:16]
        vq.compress_(model, self.recipe(name, arm, seed), calibration=start, seed=seed)
        facts = {"clustered": self.right(model).mean()}
        begun = time.process_time()
        n = CANDIDATES if arm.startswith("vq4all") else 1
        result = vq4all_(
            model, self.batches(seed), self.networks[name], n=n, rates=rates, epochs=epochs,
            checkpoint_dir=folder, resume=folder is not None, seed=seed, progress=False,
        )  # fmt: skip
        facts["seconds"] = time.process_time() - begun
        if "candidates" in result.rules:
            facts["moved"] = result.rules["candidates"][-1]["moved"]
        return model, facts

    def measured(self, name: str, arm: str, rates: vq.Rates, seed: int) -> dict[str, Any]:
        """One network of an arm."""
        if arm == "fp32":
            return {"top1": self.right(self.networks[name])}
        folder = self.folder / f"{name}-{arm}-{seed}"
        model, facts = self.trained(name, arm, rates, seed, self.epochs, folder)
        facts["peak_mb"] = peak_bytes() / 1e6
        clear(folder)
        vq.save(model, folder.with_suffix(".vq.safetensors"))
        geometries = [layer.weight.geometry for layer in compressed_layers(model)]
        if arm == "per-layer":
            counted = account(geometries)
            size = sum(a.total_bytes for a in counted), sum(g.weights for g in geometries)
            bits = 8 * size[0] / size[1]
        else:
            own = universal_bits([geometries]).networks[0]
            bits = own.indices + own.padding
        return {"top1": self.right(model), "bits_per_weight": bits, **facts}

    def together(self, arm: str, seed: int, each: dict[str, dict[str, float]]) -> dict[str, float]:
        """All networks of an arm as one, with the book that they share."""
        found = {"top1": float(np.mean([one["top1"] for one in each.values()]))}
        if arm != "fp32":
            sizes = [sum(g.weights for g in _layers_of(self.networks[name])) for name in each]
            own = (one["bits_per_weight"] for one in each.values())
            bits = sum(size * per for size, per in zip(sizes, own, strict=True))
            if arm != "per-layer":
                bits += (
                    8 * self.book("ssvq" if arm.endswith("+signs") else "vq", seed).integers.size
                )
            found["bits_per_weight"] = bits / sum(sizes)
        return found

    @torch.no_grad()
    def right(self, model: nn.Module) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which test images a model gets right."""
        model.eval()
        return torch.cat([model(x).argmax(1) == y for x, y in self.test]).numpy()

    @torch.no_grad()
    def held_out_loss(self, rate: float) -> float:
        """Loss of ResNet-20 with codebooks of its own on held-out images, trained for a third."""
        rates = replace(RATES, codebooks=rate)
        with torch.enable_grad():
            model, _ = self.trained("resnet20", "per-layer", rates, 1000, CHOICE_EPOCHS)
        model.eval()
        losses = [nn.functional.cross_entropy(model(x), y) for x, y in self.held_out]
        return float(torch.stack(losses).mean())


def _own_k(weights: int) -> int:
    return next(k for least, k in OWN_K.items() if weights >= least)


def _kind_of(arm: str) -> str:
    return "ssvq" if arm.endswith("+signs") else "vq"


def _layers_of(model: nn.Module) -> list[Geometry]:
    planned = vq.plan(model, vq.Recipe({"*": vq.VQ(d=4, k=16)}))
    return [layer.geometry for layer in planned.layers]


def main() -> None:
    """Measure every row and print the table."""
    bench = Bench("vq4all", __doc__, seeds=3, arms=ARMS)
    torch.set_num_threads(1)
    train, held = training_images()
    some = Images(train.x[::10], train.y[::10]) if bench.quick else train
    study = Study(
        {
            name: load(data_file(path)).eval()
            for name, (load, path) in NETWORKS.items()
            if name in QUICK or not bench.quick
        },
        some,
        list(ImageBatches(held, batch=250)),
        list(ImageBatches(load_cifar10_exact("test"), batch=256)),
        EPOCHS,
        LEARNT / "quick" if bench.quick else LEARNT,
    )
    for seed in bench.seeds[:1] if bench.quick else bench.seeds:
        for arm in bench.arms:
            if arm == "fp32" and seed:
                continue
            rates = RATES
            if arm == "per-layer":
                rate = 1e-2 if bench.quick else bench.choose(WORK, arm, study.held_out_loss)
                rates = replace(RATES, codebooks=rate)
            each = {
                name: bench.measure(
                    f"{WORK}/{name}",
                    arm,
                    seed,
                    partial(alone, study.measured, name, arm, rates, seed),
                )
                for name in study.networks
            }
            bench.measure(WORK, arm, seed, partial(study.together, arm, seed, each))
    bench.finish()


if __name__ == "__main__":
    main()
