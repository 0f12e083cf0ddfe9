"""SSVQ, VQ and fixed signs on a pretrained depthwise network, CIFAR-10, below 2.3 bits per weight.

The 88 thousand weights of all pointwise and depthwise convolutions are compressed, with one book
for each of the two kinds; the stem, the strided convolution, the norms and the classifier train in
fp32. Depthwise layers are so small (108 to 980 weights) that the 64-byte granules of the layout,
not the indices, are what they cost; few-bit indices are cheapest there. Data and protocol are those
of ``resnet20.py``; arms of one seed are paired, image by image.
"""

from collections.abc import Iterator
from functools import partial
from itertools import islice

import torch
from harness import Bench
from resnet20 import BATCH, finetune_fp32, training_images
from torch import Tensor, nn
from vision import Arm, Study

import vq
from signbook.data.files import data_file
from signbook.data.images import ImageBatches, Images, load_cifar10_exact, load_cifar10_jpeg
from signbook.zoo.tiniest import load_tiniest
from vq.layers import candidates

WORK = "tiniest@2.3"
Codebook = vq.SSVQ | vq.VQ
EPOCH_STEPS = 150  # a step takes 0.4 seconds: depthwise convolutions are slow on a CPU


class Epoch:
    """The first batches of a shuffled pass over the images, other ones in every epoch."""

    def __init__(self, batches: ImageBatches) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return min(EPOCH_STEPS, len(self._batches))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return islice(iter(self._batches), len(self))


def recipe(model: nn.Module, pointwise: Codebook, depthwise: Codebook) -> vq.Recipe:
    """One book for the pointwise layers and one for the depthwise ones."""
    rules: dict[str, vq.SSVQ | vq.VQ | vq.Int8 | None] = {}
    for name, module in candidates(model):
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1):
            rules[name] = pointwise
        elif isinstance(module, nn.Conv2d) and module.groups == module.in_channels:
            rules[name] = depthwise
    return vq.Recipe(rules)


def arms(model: nn.Module) -> dict[str, Arm]:
    """SSVQ at 2.21 and VQ at 2.23 bits per weight."""
    signed = recipe(
        model, vq.SSVQ(d=8, k=32, shared="pointwise"), vq.SSVQ(d=4, k=8, shared="depthwise")
    )
    plain = recipe(
        model, vq.VQ(d=4, k=64, shared="pointwise"), vq.VQ(d=4, k=32, shared="depthwise")
    )
    return {
        "ssvq": Arm(signed),
        "fixed-signs": Arm(signed, fixed_signs=True),
        "vq": Arm(plain),
    }


def main() -> None:
    """Measure every row and print the table."""
    bench = Bench("tiniest", __doc__, seeds=3)
    torch.set_num_threads(1)
    train, held = training_images()
    limit = 500 if bench.quick else None
    study = Study(
        load_tiniest(data_file("tiniest_cifar10/tiniest.pt")),
        lambda seed: Epoch(ImageBatches(train, batch=BATCH, shuffle=True, augment=True, seed=seed)),
        list(ImageBatches(Images(train.x[:512], train.y[:512]), batch=256)),
        {
            "exact": list(ImageBatches(load_cifar10_exact("test"), batch=256)),
            "jpeg": list(ImageBatches(load_cifar10_jpeg("test", limit), batch=256)),
        },
        list(ImageBatches(held, batch=250)),
        epochs=1 if bench.quick else 2,
    )
    study.reference(bench, WORK)
    for seed in bench.seeds[:2]:
        bench.measure(WORK, "fp32-finetuned", seed, partial(finetune_fp32, study, seed))
    found = arms(study.model)
    study.run(bench, WORK, found)
    for other in ("vq", "fixed-signs"):
        bench.difference(WORK, "ssvq", other, same_images=True)
    bench.finish()


if __name__ == "__main__":
    main()
