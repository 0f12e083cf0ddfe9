"""Codebooks that compensate, and scalars, on SmolLM2-135M at about 2.1, 3.1 and 4.1 bits.

All 106 million weights of the blocks' linears are quantised; embedding and output layer, which are
one, stay. Arms are ``fp32``; the scalar methods ``rtn gptq gptaq gptaq-r exa exa@0.5`` (``exa`` is
QEP, then with a beta of 0.5), with searched clipping; ``vq ssvq``, clustered with the second
moments of the inputs as importance; and methods with codebooks, ``gptaq-vq gptaq-ssvq gptaq-r-ssvq
qep-vq qep-ssvq``. Two more arms train on the text that calibrates: ``qep-ssvq+blocks``, whose
blocks are tuned as soon as they are solved, and ``qep-ssvq+blocks+scales``, whose scales and norms
then learn from the logits of fp32. Codebooks are shared by q, k and v, and by gate and up; every
output has a scale. Of arms with the same codebooks none is clustered with more effort. At equal
work VQ has no fewer bits than SSVQ and at most 2 % more, and scalars have no fewer than both.

Calibration: 32 rows of 512 tokens (16,384) of WikiText-2's validation text, written as it was
before it was cut into words, from its first two thirds; a seed draws the rows and starts the
clustering. The last eighth of these two thirds is in no calibration: 8 rows of it (``held_out``,
nats per token) choose settings with the first seed, by one rule for all arms: what is to be chosen
in turn, every value, the best is kept (groups of scalars, with ``exa`` for all of them, and the
method's own share). At 4.1 bits settings are those of 3.1. Judged by 16 rows of the last third
(8,176 predicted tokens; fp32 27.26), and by 8 rows of Shakespeare: perplexity, and KL to fp32 in
nats. Weights of "fp32" are dequantised from 4 bits in groups of 32: 4.1 bits flatter whatever meets
those grids. lm-evaluation-harness is not run: none of its data were at hand. Seconds are the
processor's, from model to quantised model; memory is the most that the process held until then.

--quick: 2.1 bits, 2,048 calibration and 4,096 judged tokens, arms fp32 gptaq exa qep-vq qep-ssvq,
no sweeps, nothing chosen.

The whole takes about 20 hours of one core, an arm, setting and seed 5 to 15 minutes. Tuned arms
take 25 to 40 minutes more; blocks that are done are kept in out/bench/real_language, and
``+scales`` goes on from those of ``+blocks``: its seconds are what it takes beyond them. Pieces of
an hour: ``--works smollm2@2.1 --arms qep-ssvq qep-vq --seeds 1``, and so on; what is finished is
kept, and processes with other works or arms may run side by side in one folder. In the end, run it
without ``--works`` and ``--arms``: nothing is measured twice.
"""

from collections import ChainMap
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from alone import alone
from harness import Bench
from plan import llama_135m
from quantised import Arm, Setting, Work, bits_of, measured

import vq
from vq.errors import ConfigError
from vq.learning.checkpoint import clear

Options = tuple[Mapping[str, Any], ...]
WORKS = {
    work.name: work
    for work in (
        Work(
            "smollm2@2.1",
            2,
            {"ssvq": vq.SSVQ(d=8, k=512, parity=True), "vq": vq.VQ(d=4, k=256)},
            {("vq", "qkv"): vq.VQ(d=4, k=512)},
        ),
        Work(
            "smollm2@3.1",
            3,
            {"ssvq": vq.SSVQ(d=5, k=1024), "vq": vq.VQ(d=3, k=512)},
            {
                ("ssvq", "qkv"): vq.SSVQ(d=4, k=256),
                ("ssvq", "o"): vq.SSVQ(d=4, k=256),
                ("vq", "o"): vq.VQ(d=3, k=1024),
            },
        ),
        Work(
            "smollm2@4.1",
            4,
            {"ssvq": vq.SSVQ(d=3, k=512), "vq": vq.VQ(d=2, k=256)},
            {("vq", "o"): vq.VQ(d=2, k=512)},
        ),
    )
}
#: The arm that groups of scalars are chosen with.
GROUPED = "exa"
#: Has one seed, and the settings of the work beside it.
ONE_SEED, LIKE = "smollm2@4.1", "smollm2@3.1"
ARMS = (
    *("fp32", "rtn", "gptq", "gptaq", "gptaq-r", "exa", "exa@0.5", "vq", "ssvq"),
    *("gptaq-vq", "gptaq-ssvq", "gptaq-r-ssvq", "qep-vq", "qep-ssvq"),
    *("qep-ssvq+blocks", "qep-ssvq+blocks+scales"),
)
#: Nothing in them is random.
UNSEEDED = ("fp32", "rtn")
#: What may be chosen; --quick takes the first groups and shares.
GROUPS: Options = (
    {"group": 192, "zeros": True},
    {"group": 144, "zeros": False},
)
SWEEPS: Options = ({"sweeps": 1},)
SHARES = {"gptaq": (0.25, 0.5), "gptaq-r": (0.25, 0.1), "exa": (0.75, 0.5), "qep": (0.75, 0.5)}
QUICK_WORK, QUICK_ARMS = "smollm2@2.1", ("fp32", "gptaq", "exa", "qep-vq", "qep-ssvq")


def options_of(arm: Arm) -> list[Options]:
    """What may be chosen for an arm, one thing after another: the fields of a setting."""
    if not arm.solver:
        return []
    found = [GROUPS if arm.book is None else SWEEPS]
    if arm.solver in SHARES and arm.share is None:
        found.append(tuple({"share": share} for share in SHARES[arm.solver]))
    return found


def first(arm: Arm) -> Setting:
    """The first of everything that may be chosen."""
    return Setting(**ChainMap(*(options[0] for options in options_of(arm))))


def measure(
    bench: Bench, arm: Arm, setting: Setting, seed: int, *, shown: bool = True
) -> dict[str, float]:
    """Measure an arm in a process of its own."""
    rows, judged = (4, 8) if bench.quick else (32, 16)
    folder = Path("out/bench") / bench.name / f"{arm.work.name}-{seed}" if arm.tuned else None
    run = partial(alone, measured, arm, setting, seed, rows, judged, folder)
    found = bench.measure(arm.work.name, arm.name, seed, run, setting=str(setting), shown=shown)
    if folder is not None and "scales" in arm.tuned:
        clear(folder)
    return found


def chosen(bench: Bench, arm: Arm) -> Setting:
    """The setting that is best on held-out calibration text with the first seed.

    That of 3.1 bits serves at 4.1; what is tuned has the setting of what is not. The groups that
    are best for ``exa`` serve all scalars.
    """
    arm = replace(arm.untuned, work=WORKS[LIKE] if arm.work.name == ONE_SEED else arm.work)
    setting, found = first(arm), options_of(arm)
    if GROUPS in found and arm.name != GROUPED:
        found.remove(GROUPS)
        best = chosen(bench, Arm(arm.work, GROUPED))
        setting = replace(setting, group=best.group, zeros=best.zeros)
    for options in found:
        if len(options) > 1:
            tries = [replace(setting, **fields) for fields in options]
            losses = [
                measure(bench, arm, one, bench.seeds[0], shown=False)["held_out"] for one in tries
            ]
            setting = tries[losses.index(min(losses))]
    return setting


def check_bits(work: Work) -> None:
    """Require the bits that the description promises."""
    with torch.device("meta"):
        model = llama_135m()
    ssvq, plain = (bits_of(model, Arm(work, kind).recipe(Setting())) for kind in ("ssvq", "vq"))
    scalars = min(bits_of(model, Arm(work, "gptq").recipe(Setting(**one))) for one in GROUPS)
    if not ssvq <= plain <= min(1.02 * ssvq, scalars):
        raise ConfigError(
            f"work {work.name!r}: vq must have no fewer bits than ssvq, {ssvq:.4f}, at most 2 % "
            f"more, and no more than scalars, {scalars:.4f}, not {plain:.4f}"
        )


def planned(bench: Bench) -> Iterator[tuple[Arm, int]]:
    """Arms and seeds to measure: all arms of a seed before the next one."""
    for name in [QUICK_WORK] if bench.quick else bench.works:
        for seed in bench.seeds[:1] if bench.quick or name == ONE_SEED else bench.seeds:
            for arm in bench.arms:
                if bench.quick and arm not in QUICK_ARMS:
                    continue
                if "+" in arm and (name == ONE_SEED or (name == LIKE and seed != bench.seeds[0])):
                    continue
                if seed == bench.seeds[0] or arm not in UNSEEDED:
                    yield Arm(WORKS[name], arm), seed


def main() -> None:
    """Measure every row and print the table."""
    bench = Bench("real_language", __doc__, seeds=3, works=tuple(WORKS), arms=ARMS)
    for name in bench.works:
        check_bits(WORKS[name])
    for arm, seed in planned(bench):
        setting = replace(first(arm), sweeps=0) if bench.quick else chosen(bench, arm)
        measure(bench, arm, setting, seed)
    bench.finish()


if __name__ == "__main__":
    main()
