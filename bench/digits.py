"""SSVQ, VQ and fixed signs on the demo's digits transformer, 1.56 to 1.60 bits per weight.

For every seed a model is trained on a split of its own, so the spread is that of the whole
procedure; arms of one seed are paired, and their differences have a row of their own. Codebook
rates are chosen once per arm, on a fifth of the training images of a further seed.
"""

from dataclasses import replace
from functools import partial

import torch
from harness import Bench
from vision import Arm, Study

import vq
from signbook.demo import ARMS as DEMO
from signbook.zoo.digits import DigitBatches, Digits, DigitsViT, load_digits, train

WORK = "digits-vit@1.6"
ARMS = {
    "ssvq": Arm(DEMO["ssvq"]),
    "fixed-signs": Arm(DEMO["ssvq"], fixed_signs=True),
    "vq": Arm(DEMO["vq"]),
    "ssvq gradients": Arm(DEMO["ssvq"], importance="gradients"),
    "ssvq parity": Arm(vq.Recipe({"blocks.*": vq.SSVQ(d=8, k=16, parity=True)})),
}
CHOICE_SEED = 1000


def study(data: Digits, seed: int, quick: bool) -> Study:
    """Train the demo's model on ``data``; the last fifth of the training images is held out."""
    torch.manual_seed(seed)
    model = train(DigitsViT(), data, epochs=5 if quick else 30, seed=seed)
    return Study(
        model,
        lambda s: DigitBatches(data, seed=s),
        [(data.train_x[:256], data.train_y[:256])],
        {"test": [(data.test_x, data.test_y)]},
        [(data.test_x, data.test_y)],
        epochs=2 if quick else 12,
    )


def choose_rates(bench: Bench) -> dict[str, float]:
    """Choose each arm's codebook rate on training images that are not trained on."""
    data = load_digits(CHOICE_SEED)
    first = len(data.train_y) * 4 // 5
    part = replace(
        data,
        train_x=data.train_x[:first],
        train_y=data.train_y[:first],
        test_x=data.train_x[first:],
        test_y=data.train_y[first:],
    )
    current = study(part, CHOICE_SEED, bench.quick)
    return {
        name: bench.choose(WORK, name, partial(current.held_out_loss, arm))
        for name, arm in ARMS.items()
    }


def main() -> None:
    """Measure every row and the paired differences, and print the table."""
    bench = Bench("digits", __doc__, seeds=10)
    torch.set_num_threads(1)
    rates = choose_rates(bench)
    for seed in bench.seeds:
        current = study(load_digits(seed), seed, bench.quick)
        for name, arm in ARMS.items():
            run = partial(current.measure, arm, rates[name], seed)
            bench.measure(WORK, name, seed, run, setting=f"rate {rates[name]:g}")
    for other in ("vq", "fixed-signs"):
        bench.difference(WORK, "ssvq", other, same_images=False)
    bench.finish()


if __name__ == "__main__":
    main()
