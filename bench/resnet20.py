"""SSVQ, VQ and fixed signs on a pretrained ResNet-20, CIFAR-10, at 1.6 and at 2.05 bits per weight.

All convolutions but the first are compressed; the first, the classifier and the norms train in
fp32. Trained on 3,805 exact and 9,000 JPEG training images; 1,000 more choose the learning rates.
Judged on the 10,000 JPEG test images and on the 761 exact ones; arms of one seed are paired.
``fp32-finetuned`` trains the uncompressed model as long: JPEG scores compare with that.
"""

import copy
from functools import partial

import numpy as np
import torch
from harness import Bench
from numpy.typing import NDArray
from torch import nn
from vision import Arm, Study

import vq
from signbook.data.files import data_file
from signbook.data.images import ImageBatches, Images, load_cifar10_exact, load_cifar10_jpeg
from signbook.zoo.resnet import load_resnet20

CONVS = "layer*.conv?"
#: The teacher alone, softened: of five shares and temperatures the one that ended nearest to the
#: teacher on held-out training images (docs/log.md).
TEACHER = vq.Distillation(weight=1, temperature=4)
WORKS = {
    "resnet20@1.6": {
        "ssvq": Arm(vq.Recipe({CONVS: vq.SSVQ(d=8, k=16)})),
        "fixed-signs": Arm(vq.Recipe({CONVS: vq.SSVQ(d=8, k=16)}), fixed_signs=True),
        "vq": Arm(vq.Recipe({CONVS: vq.VQ(d=4, k=64)})),
        "vq-shared": Arm(vq.Recipe({CONVS: vq.VQ(d=4, k=64, shared="all")})),
        "ssvq+kd": Arm(vq.Recipe({CONVS: vq.SSVQ(d=8, k=16)}), teacher=TEACHER),
        "vq+kd": Arm(vq.Recipe({CONVS: vq.VQ(d=4, k=64)}), teacher=TEACHER),
    },
    "resnet20@2.05": {
        "ssvq": Arm(vq.Recipe({CONVS: vq.SSVQ(d=4, k=16)})),
        "fixed-signs": Arm(vq.Recipe({CONVS: vq.SSVQ(d=4, k=16)}), fixed_signs=True),
        "vq-shared": Arm(vq.Recipe({CONVS: vq.VQ(d=4, k=256, shared="all")})),
    },
}
BATCH, HELD_OUT = 32, 1000


def training_images() -> tuple[Images, Images]:
    """All exact and most JPEG training images, and 1,000 JPEG ones that choose learning rates."""
    exact, jpeg = load_cifar10_exact("train"), load_cifar10_jpeg("train")
    order = torch.randperm(len(jpeg), generator=torch.Generator().manual_seed(0))
    held, rest = order[:HELD_OUT], order[HELD_OUT:]
    together = Images(torch.cat([exact.x, jpeg.x[rest]]), torch.cat([exact.y, jpeg.y[rest]]))
    return together, Images(jpeg.x[held], jpeg.y[held])


def finetune_fp32(study: Study, seed: int) -> dict[str, NDArray[np.bool_]]:
    """Train the uncompressed model on the same batches."""
    model = copy.deepcopy(study.model)
    batches = study.batches(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=study.rate_rest)
    steps = study.epochs * len(batches)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    for _ in range(study.epochs):
        for x, y in batches:
            with torch.autocast("cpu", torch.bfloat16, enabled=study.amp is not None):
                loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    return study.scores(model)


def main() -> None:
    """Measure every row and print the table."""
    bench = Bench("resnet20", __doc__, seeds=4)
    torch.set_num_threads(1)
    train, held = training_images()
    limit = 500 if bench.quick else None
    study = Study(
        load_resnet20(data_file("resnet_cifar10/resnet20-*.th")),
        lambda seed: ImageBatches(train, batch=BATCH, shuffle=True, augment=True, seed=seed),
        list(ImageBatches(Images(train.x[:2048], train.y[:2048]), batch=256)),
        {
            "exact": list(ImageBatches(load_cifar10_exact("test"), batch=256)),
            "jpeg": list(ImageBatches(load_cifar10_jpeg("test", limit), batch=256)),
        },
        list(ImageBatches(held, batch=250)),
        epochs=1 if bench.quick else 5,  # of 400 steps
        choice_share=0.3,
        amp="bf16",
    )
    for seed in bench.seeds[:2]:
        bench.measure("resnet20", "fp32-finetuned", seed, partial(finetune_fp32, study, seed))
    for work, arms in WORKS.items():
        study.reference(bench, work)
        # One choice of rates: the same arms at more bits train with the same ones.
        study.run(bench, work, arms, rates_of=next(iter(WORKS)))
        for other in ("fixed-signs", "vq", "vq-shared"):
            if other in arms:
                bench.difference(work, "ssvq", other, same_images=True)
    bench.finish()


if __name__ == "__main__":
    main()
