"""GPTQ, GPTAQ, ResComp's variants of both, FOEM and QEP on real models, beside SSVQ and VQ.

Works are named by model, bits and group: ``stories260k@w3g32``, ``minilm@w2g128``. Arms are the
methods, ``exa`` being QEP; ``gptaq-r@0.1`` is the method with that share: alpha of ``gptaq``
(0.25), alpha2 of ``gptq-r`` and ``gptaq-r`` (0.25; alpha stays 0.25), beta of ``exa`` (1) and
``foem`` (0.2). A share of 0 is the method without the term, an arm of its own. All linears in
blocks are quantised, by every scalar arm with symmetric groups, searched clipping, activation order
and 0.01 damping (``+damped``: 0.1); at 2 bits ResComp's mode is "org", as its authors have it, and
"allw" in arms ``+allw``.

A seed chooses the calibration texts, at least 16,384 tokens of the training part, the same for all
arms; ``gptq - rtn`` is the difference on equal texts, its standard error that over seeds. ``ssvq``
and ``vq`` are clustered with the second moments of the same texts as importance, at the total bits
of the scalar arms (the column says how exactly). No arm but ``+trained`` changes by gradients;
those go on from there and learn codebooks, signs and norms on 534 stories as in ``language.py``,
VQ of d = 4 with re-assignment, at rates that 40 further stories choose. For MiniLM at 2 bits they
are taken from ``minilm.py``, if it has run in this folder.

stories260K is judged by nats per token on 120 stories, MiniLM by 1 - cosine of the embeddings of
512 sentences to those of fp32. Bytes, cycles and speed-up over int8 are those of the same linears
on one row, by the cycle model, with ideal memory and one instance for all arms: 16x16, 128 bits,
codebooks of up to 512 codewords from d = 2 on. ``--plot FILE`` draws the result; ``--work NAME``,
more than once if need be, measures some works only.
"""

import argparse
import copy
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from accuracy_plot import accuracy_against_bytes
from harness import Bench
from subjects import SUBJECTS, Codebook, Subject, distilled
from torch import nn

import vq
from hwsim import estimate
from rescomp import Clip, Settings, quantize_
from rescomp.methods import Method
from rtl import AcceleratorConfig
from signbook.commands.compensated import method_named
from signbook.files import write_text
from vq.container import account, open_container
from vq.errors import ConfigError

#: What a method is without the term that makes it.
BASES = {
    "gptq": "rtn",
    "gptaq": "gptq",
    "gptq-r": "gptq",
    "gptaq-r": "gptaq",
    "exa": "gptq",
    "foem": "gptq",
    "gptq+damped": "gptq",
    "gptaq+damped": "gptaq",
    "gptq-r+allw": "gptq",
    "gptaq-r+allw": "gptaq",
}
SHARES = {"gptaq": "alpha", "gptq-r": "alpha2", "gptaq-r": "alpha2", "exa": "beta", "foem": "beta"}
METHODS = ("rtn", "gptq", "gptaq", "gptq-r", "gptaq-r", "exa")
DAMPING = ("gptq+damped", "gptaq+damped")
SWEPT_MODES = ("gptq-r+allw", "gptaq-r+allw")
#: Other shares, FOEM being GPTQ-R with one of its own, and ten times the damping.
SWEPT = ("foem", "gptaq@1", "gptq-r@0.1", "gptq-r@1", "gptaq-r@0.1", "gptaq-r@1",
         "exa@0.1", "exa@0.25", "exa@0.5", *DAMPING)  # fmt: skip
SWEPT_ENCODER = ("exa@0.5", *DAMPING, "gptq-r@0.1", "gptq-r@1", "gptaq-r@0.1", "gptaq-r@1",
                 "exa@0.25")  # fmt: skip
KINDS = {2: vq.Int2, 3: vq.Int3, 4: vq.Int4}
SETTINGS = Settings(clip=Clip(), measure=False)
#: Of the arms ``+damped``, the plain answer to texts that are few for the inputs.
DAMPED = replace(SETTINGS, damping=0.1)
ACCELERATOR = AcceleratorConfig(d_min=2, index_bits_max=9)
#: Codebooks differ by far more than their spread.
CODEBOOK_SEEDS, TRAINED_SEEDS = 3, 2


@dataclass(frozen=True)
class Work:
    """What is compared on one model at one number of bits."""

    subject: str
    bits: int
    group: int
    codebooks: dict[str, Codebook]
    swept: tuple[str, ...]
    seeds: int = 5
    swept_seeds: int = 5

    @property
    def name(self) -> str:
        """For example ``stories260k@w3g32``."""
        return f"{self.subject}@w{self.bits}g{self.group}"


def _stories(bits: int, ssvq: Codebook, plain: Codebook) -> Work:
    shared = {"ssvq": replace(ssvq, shared="blocks"), "vq": replace(plain, shared="blocks")}
    return Work("stories260k", bits, 32, shared, SWEPT + SWEPT_MODES * (bits == 2))


def _minilm(
    bits: int, ssvq: Codebook, plain: Codebook, swept: tuple[str, ...], seeds: int = 5
) -> Work:
    codebooks = {"ssvq": ssvq, "vq": plain}
    return Work("minilm", bits, 128, codebooks, swept, seeds, swept_seeds=2)


#: Codebooks whose total bits are nearest to those of the scalar arms.
WORKS = {
    work.name: work
    for work in (
        _stories(3, vq.SSVQ(d=4, k=512), vq.VQ(d=2, k=128)),
        _stories(2, vq.SSVQ(d=8, k=512), vq.VQ(d=4, k=512)),
        _stories(4, vq.SSVQ(d=2, k=128), vq.VQ(d=2, k=512)),
        _minilm(3, vq.SSVQ(d=4, k=256), vq.VQ(d=2, k=64), SWEPT_ENCODER),
        _minilm(2, vq.SSVQ(d=8, k=256), vq.VQ(d=4, k=256), ("exa@0.5", *SWEPT_MODES, *DAMPING)),
        _minilm(4, vq.SSVQ(d=2, k=64), vq.VQ(d=2, k=256), ("exa@0.5",), seeds=2),
    )
}
QUICK = "stories260k@w3g32"
DISTILLED = "minilm@w2g128"


def method_of(arm: str, bits: int) -> Method:
    """Scalar method of an arm such as ``gptq`` or ``gptaq-r@0.1``.

    Raises
    ------
    ConfigError
        If there is no such method, or it has no such share.
    """
    method, _, setting = arm.partition("+")
    name, at, share = method.partition("@")
    options: dict[str, float | str | None] = {}
    if at:
        if name not in SHARES:
            raise ConfigError(f"arm with a share must be of {', '.join(SHARES)}, not {arm!r}")
        try:
            options[SHARES[name]] = float(share)
        except ValueError:
            raise ConfigError(f"share of arm {arm!r} must be a number, not {share!r}") from None
    if bits == 2 and name.endswith("-r") and setting != "allw":
        options["mode"] = "org"
    return method_named(name, **options)


def quantised(subject: Subject, work: Work, arm: str, seed: int) -> dict[str, float]:
    """Metrics of a scalar arm."""
    model = copy.deepcopy(subject.model)
    recipe = vq.Recipe({subject.layers: KINDS[work.bits](group=work.group)})
    method, data = method_of(arm, work.bits), subject.calibration(seed)
    settings = DAMPED if arm.endswith("+damped") else SETTINGS
    quantize_(model, data, recipe, method, settings=settings, seed=seed)
    return scored(subject, model)


def clustered(subject: Subject, method: Codebook | vq.Int8, seed: int) -> dict[str, float]:
    """Metrics of a codebook that nothing trains, or of int8."""
    model, data = copy.deepcopy(subject.model), subject.calibration(seed)
    recipe = vq.Recipe({subject.layers: method})
    vq.compress_(model, recipe, calibration=data, importance="inputs", progress=False, seed=seed)
    return scored(subject, model)


def scored(subject: Subject, model: nn.Module) -> dict[str, float]:
    """Score of a compressed model; bits, bytes and cycles of its file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.vq.safetensors"
        vq.save(model, path)
        with open_container(path) as container:
            counted = account([entry.geometry for entry in container.layers])
        document = estimate(path, config=ACCELERATOR, rows=1)
    run, weights = document["runs"]["compressed"], sum(a.geometry.weights for a in counted)
    return {
        subject.metric: subject.score(model),
        "bytes_read": run["bytes_read"],
        "cycles": run["cycles"],
        "speedup": document["speedup"],
        "bits_per_weight": 8 * sum(a.total_bytes for a in counted) / weights,
    }


class Comparison:
    """One work: every arm, and their differences."""

    def __init__(self, bench: Bench, work: Work, subject: Subject) -> None:
        self.bench, self.work, self.subject = bench, work, subject
        self.seeds = [s for s in bench.seeds if s < (1 if bench.quick else work.seeds)]
        self.found: dict[tuple[str, int], dict[str, float]] = {}

    def run(self) -> None:
        """Measure methods and codebooks."""
        subject, work = self.subject, self.work
        self.bench.measure(
            work.name, "fp32", 0, lambda: {subject.metric: subject.score(subject.model)}
        )
        self._measure("int8", 0, partial(clustered, subject, vq.Int8(), 0))
        for seed in self.seeds:
            for arm in METHODS if seed == self.seeds[0] else METHODS[1:]:  # nothing calibrates RTN
                self._measure(arm, seed, partial(quantised, subject, work, arm, seed))
        for seed in self.seeds[:CODEBOOK_SEEDS]:
            for arm, method in work.codebooks.items():
                self._measure(arm, seed, partial(clustered, subject, method, seed))
        for arm in METHODS[1:]:
            self._subtract(arm, self.seeds)

    def sweep(self) -> None:
        """Measure the methods with other shares."""
        seeds = self.seeds[: self.work.swept_seeds]
        for seed in seeds:
            for arm in self.work.swept:
                run = partial(quantised, self.subject, self.work, arm, seed)
                self._measure(arm, seed, run)
        for arm in self.work.swept:
            self._subtract(arm, seeds)

    def train(self) -> None:
        """Measure the trained codebooks."""
        subject, work = self.subject, self.work
        train, loss = subject.train, subject.loss
        if train is not None and loss is not None:

            def run(arm: str, rate: float, seed: int) -> dict[str, float]:
                return scored(subject, train(arm, work.codebooks[arm], rate, seed))

            for name, method in work.codebooks.items():
                arm = f"{name}+trained"
                rate = self.bench.choose(work.name, arm, partial(loss, name, method))
                for seed in self.seeds[:TRAINED_SEEDS]:
                    self._measure(arm, seed, partial(run, name, rate, seed), f"rate {rate:g}")
        elif self.work.name == DISTILLED:
            for arm in self.work.codebooks:
                for seed, error in distilled(arm).items():
                    facts = self.found[arm, self.seeds[0]] | {subject.metric: error}
                    self._measure(f"{arm}+trained", seed, partial(dict, facts))

    def _measure(
        self, arm: str, seed: int, run: Callable[[], dict[str, float]], setting: str = ""
    ) -> None:
        found = self.bench.measure(self.work.name, arm, seed, run, setting=setting)
        self.found[arm, seed] = found

    def _subtract(self, arm: str, seeds: list[int]) -> None:
        base, metric = BASES[arm.partition("@")[0]], self.subject.metric
        for seed in seeds:
            other = self.found[base, seed if (base, seed) in self.found else self.seeds[0]]
            mine, theirs = self.found[arm, seed][metric], other[metric]
            # The setting keeps a difference of former values from being taken from the journal.
            run, setting = partial(dict, {metric: mine - theirs}), f"{mine!r} - {theirs!r}"
            self.bench.measure(self.work.name, f"{arm} - {base}", seed, run, setting=setting)


def main() -> None:
    """Measure every row and print the table."""
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    own.add_argument("--plot", type=Path)
    own.add_argument("--work", choices=WORKS, action="append")
    options, sys.argv[1:] = own.parse_known_args()
    bench = Bench("scalars", __doc__, seeds=5)
    torch.set_num_threads(1)
    works = [WORKS[name] for name in options.work or ([QUICK] if bench.quick else WORKS)]
    subjects = {name: SUBJECTS[name]() for name in dict.fromkeys(work.subject for work in works)}
    comparisons = [Comparison(bench, work, subjects[work.subject]) for work in works]
    for comparison in comparisons:
        comparison.run()
    for comparison in comparisons if not bench.quick else ():
        comparison.sweep()
    for comparison in comparisons if not bench.quick else ():
        comparison.train()
    document = bench.finish()
    if options.plot:
        write_text(options.plot, accuracy_against_bytes(document["rows"]))


if __name__ == "__main__":
    main()
