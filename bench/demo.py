"""SSVQ, VQ and fixed signs on the demo's language model, at 1.56 bits per weight.

Every seed trains a model of its own on the prose of Python's documentation, so the spread is that
of the whole procedure; the arms of one seed start from one model and get the same batches.
``fp32`` is that model, trained on as the arms are. Judged by nats per token on topics that no
training sees. Rows such as ``ssvq - vq`` hold differences, paired by seed.

The settings are the demo's (``signbook/demo/language.py``). They were chosen on other topics and
with other seeds (docs/log.md).
"""

import copy
from functools import cache, partial

import torch
from harness import Bench
from torch import nn

from signbook.demo.language import ARMS, Arm, Sizes, train_arm, train_fp32
from signbook.zoo.topics import nats_per_token

WORK = "demo-language"
PAIRS = (("ssvq", "vq"), ("ssvq", "fixed-signs"), ("ssvq", "fp32"))


def main() -> None:
    """Measure every row and print the table."""
    bench = Bench("demo", __doc__, seeds=5)
    torch.set_num_threads(1)
    sizes = Sizes(first_epochs=1, second_epochs=1) if bench.quick else Sizes()
    data = sizes.load()

    @cache
    def original(seed: int) -> nn.Module:
        return train_fp32(data, sizes, seed=seed)

    def reference(seed: int) -> dict[str, float]:
        model = train_fp32(data, sizes, seed=seed, start=original(seed))
        return {"nats": nats_per_token(model, data.test)}

    def compressed(arm: Arm, seed: int) -> dict[str, float]:
        model = copy.deepcopy(original(seed))
        bits, _ = train_arm(model, arm, data, sizes, seed=seed)
        return {"nats": nats_per_token(model, data.test), "bits_per_weight": bits}

    for seed in bench.seeds:
        nats = {"fp32": bench.measure(WORK, "fp32", seed, partial(reference, seed))["nats"]}
        for name, arm in ARMS.items():
            name = name.replace("_", "-")
            found = bench.measure(WORK, name, seed, partial(compressed, arm, seed))
            nats[name] = found["nats"]
        for one, other in PAIRS:
            gap = nats[one] - nats[other]
            bench.measure(WORK, f"{one} - {other}", seed, lambda gap=gap: {"nats": gap})
    bench.finish()


if __name__ == "__main__":
    main()
