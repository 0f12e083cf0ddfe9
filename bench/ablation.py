"""What each part of sign learning is worth, on a language model where learned signs matter.

stories260K as in ``language.py`` at 2.1 bits per weight; all arms share codebooks, data, steps and
learning rates, and differ in what becomes of the signs: fixed, learned to the end, or frozen when
they oscillate - by majority in the window or in the whole run, by a moving average, earlier or
later, in other intervals. Nats per token on 120 stories, arms paired by seed.
"""

from functools import partial

import torch
from harness import Bench
from language import CHOICE, TEST, WORKS, Arm, Stories, nats_per_token, rows_of, train_arm

from signbook.data.files import data_file
from signbook.zoo.llama import load_stories260k
from vq.learning.rules.signs import Freezing

WORK = "stories260k@2.1"
METHOD = WORKS[WORK]["ssvq"].method
#: Thresholds low enough to freeze several per cent of the signs within the run.
EAGER = partial(Freezing, threshold_start=0.05, threshold_end=0.005)
ARMS = {
    "fixed signs": Arm(METHOD, fixed_signs=True),
    "no freezing": Arm(METHOD, freezing=None),
    "default freezing": Arm(METHOD),
    "majority": Arm(METHOD, freezing=EAGER()),
    "majority of the run": Arm(METHOD, freezing=EAGER(counters="run")),
    "ema vote": Arm(METHOD, freezing=EAGER(vote="ema")),
    "majority, interval 5": Arm(METHOD, freezing=EAGER(interval_steps=5)),
    "majority, interval 40": Arm(METHOD, freezing=EAGER(interval_steps=40)),
}
CODEBOOK_RATE = 3e-2


def main() -> None:
    """Measure every row and print the table."""
    bench = Bench("ablation", __doc__, seeds=3)
    torch.set_num_threads(1)
    model = load_stories260k(data_file("stories260K/stories260K.bin"))
    test = rows_of(0, TEST)
    train = rows_of(TEST + CHOICE, 160 if bench.quick else 640)
    epochs = 1 if bench.quick else 4

    def measure(arm: Arm, seed: int) -> dict[str, float]:
        stories = Stories(train, seed)
        trained, facts = train_arm(model, arm, CODEBOOK_RATE, seed, epochs, stories)
        return {"nats_per_token": nats_per_token(trained, test), **facts}

    for seed in bench.seeds:
        for name, arm in ARMS.items():
            bench.measure(WORK, name, seed, partial(measure, arm, seed))
    bench.finish()


if __name__ == "__main__":
    main()
