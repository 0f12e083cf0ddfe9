"""LSI and SDE beside rounding, clipping and compensation, at equal bits, data and epochs.

Works are named by model, bits and group: ``stories260k@w2g32``, ``stories260k@w3g32``,
``minilm@w2g128``, ``smollm2@w2g64``; at ``stories260k@w4a4`` and ``smollm2@w4a4``, groups are of 32
and 64, and the inputs of all linears in blocks are rounded to 4 bits, token by token, in
calibration and in the scores. All linears in blocks are quantised, by every arm in groups with
zeros, so that all files have the same bytes. ``rtn`` rounds to nearest. ``lwc`` learns to clip;
``lsi`` moves singular values, too; ``sde@16`` a band of width 16 around them, ``sde@random`` as
many entries anywhere; ``full`` all weights, without singular vectors; ``+cl1`` and ``+cl2`` add the
losses behind one and two further blocks. ``omniquant`` learns to clip, and scales between layers;
``omniquant+sde+cl`` has the band of width 16 and the loss behind one further block, too.
``duquant`` spreads outliers of activations by rotations, and learns to clip; ``prefixquant`` keeps
outlier tokens in front, and all weights and their clipping learn; where activations are rounded, by
token and on static scales, each in its own way; ``+sde+cl`` as above, in place of all weights. What
they leave beside the weights is told as ``runtime_bits``, bits per weight, and ``runtime_macs``,
multiplications for a token in those of the weights; it is in no other figure. These train each
block for 10 epochs (MiniLM, SmolLM2: 4).
``gptq``, ``gptaq-r`` and ``exa@0.5`` compensate, with searched clipping; they do not train.

Learning rates are chosen on stories260k@w2g32, for all works, by ``block_loss`` on another draw of
the calibration, after training on a third one: of clipping with ``lwc``, of scales between layers
with ``omniquant``, of moves by every arm that has them, but ``+cl`` has that of the arm without,
``+sde+cl`` that of ``sde@16``, and ``prefixquant`` that of ``full``.

A seed draws the calibration, the same for all arms: 32 rows of 256 tokens of stories or of
WikiText-2's "calibrate" part (SmolLM2), two to a step, or some 8,192 tokens of sentences
(MiniLM). The last eighth judges blocks, and does not teach. Judged by nats per token on 120
stories, by perplexity on 16 rows of 512 tokens of WikiText-2's "judge" part, or by 1 - cosine of
the embeddings of 512 sentences to those of fp32. ``second`` is the same metric on another text,
Shakespeare. ``block_loss``: mean over blocks of the squared error over the variance of the
unquantised block's output, each arm on its own stream, on the calibration; ``block_spread`` is the
standard deviation over blocks, over that mean. ``moved`` is how far weights were moved before they
were rounded, relative to their size, ``trained`` how many numbers learnt. Seconds are the
processor's, from model to quantised model; ``peak_mb`` is all that the process held until then.

--quick: stories260k@w2g32, one seed, half the calibration, 3 epochs, 40 stories.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from alone import alone
from harness import Bench
from subjects import SUBJECTS
from torch import Tensor, nn

import vq
from rescomp import Clip, Settings, quantize_
from signbook.commands.compensated import method_named
from signbook.data.factories import tinyshakespeare, tinystories, wikitext2
from signbook.data.files import data_file
from signbook.data.texts import sentences_of
from signbook.evaluation import evaluate
from signbook.tasks import Embedding, LanguageModelling
from signbook.zoo.minilm import minilm_tokenizer, tokenize
from signbook.zoo.smollm2 import smollm2
from vq.activations.runtime import runtime_tensors
from vq.activations.tokens import ActivationQuantizer
from vq.container.runtime import PARTS, parse_parts
from vq.learning.observed import Observed, blocks_of
from vq.methods.duquant import duquant_
from vq.methods.lsi import lsi_
from vq.methods.lwc import lwc_
from vq.methods.omniquant import omniquant_
from vq.methods.prefixquant import prefixquant_
from vq.methods.sde import sde_
from vq.perturbation.composition import Clip as LearntClip
from vq.perturbation.composition import Equalise, Perturb
from vq.perturbation.door import LearnedResult
from vq.perturbation.mask import Mask
from vq.recipe.footprint import peak_bytes
from vq.recipe.selection import select

ARMS = (
    *("rtn", "lwc", "lsi", "sde@4", "sde@16", "sde@random", "sde@16+cl1", "sde@16+cl2", "full"),
    *("omniquant", "omniquant+sde+cl"),
    *("duquant", "duquant+sde+cl", "prefixquant", "prefixquant+sde+cl"),
    *("gptq", "gptaq-r", "exa@0.5"),
)
#: Enough of them for a model of 135 million weights.
LARGE = ("rtn", "lwc", "lsi", "sde@16", "gptaq-r")
ROUNDED = (
    *("rtn", "gptaq-r", "omniquant", "omniquant+sde+cl"),
    *("duquant", "duquant+sde+cl", "prefixquant", "prefixquant+sde+cl"),
)
LARGE_ROUNDED = ("rtn", "gptaq-r", "duquant", "duquant+sde+cl")
UNTRAINED = ("rtn", "gptq", "gptaq-r", "exa@0.5")
#: Methods that round activations as a part of the model.
OWN_ROUNDING = ("duquant", "prefixquant")
KINDS = {2: vq.Int2, 3: vq.Int3, 4: vq.Int4}
ROWS, ROW_TOKENS, STEP_ROWS = 32, 256, 2
EPOCHS, FEW_EPOCHS, QUICK_EPOCHS = 10, 4, 3
WIDTH = 16
#: Seeds of the calibrations by which rates are chosen: to learn from, and to judge by.
CHOICE, OTHERS = 1000, 1001


@dataclass(frozen=True)
class Work:
    """What is compared on one model at one number of bits."""

    subject: str
    bits: int
    group: int
    arms: tuple[str, ...] = ARMS
    seeds: int = 3
    epochs: int = EPOCHS
    activation_bits: int | None = None

    @property
    def name(self) -> str:
        """For example ``stories260k@w2g32``, or ``smollm2@w4a4``."""
        a = self.activation_bits
        return f"{self.subject}@w{self.bits}" + (f"g{self.group}" if a is None else f"a{a}")


WORKS = {
    work.name: work
    for work in (
        Work("stories260k", 2, 32),
        Work("stories260k", 3, 32),
        Work("stories260k", 4, 32, ROUNDED, activation_bits=4),
        Work("minilm", 2, 128, epochs=FEW_EPOCHS),
        Work("smollm2", 2, 64, LARGE, 2, FEW_EPOCHS),
        Work("smollm2", 4, 64, LARGE_ROUNDED, 2, FEW_EPOCHS, 4),
    )
}
#: The only one with ``--quick``; it also chooses rates for all.
SMALL = "stories260k@w2g32"


@dataclass(frozen=True)
class Subject:
    """A model, its calibration by seed, and its score; ``quick`` is of all a part."""

    model: nn.Module
    layers: str
    calibration: Callable[[int], list[Any]]
    score: Callable[[nn.Module], dict[str, float]]


def stories260k(quick: bool) -> Subject:
    """Learns and is judged by stories, and by Shakespeare."""
    found = SUBJECTS["stories260k"]()
    texts = {
        "nats_per_token": tinystories(limit=40 if quick else 120, batch=16),
        "second": tinyshakespeare(limit=16 if quick else 64),
    }

    def calibration(seed: int) -> list[Tensor]:
        rows = torch.cat(found.calibration(seed))[: ROWS // 2 if quick else ROWS]
        return list(rows.split(STEP_ROWS))

    return Subject(found.model, found.layers, calibration, partial(_read, texts, "nats_per_token"))


def smollm2_135m(quick: bool) -> Subject:
    """Learns and is judged by an encyclopaedia, and by Shakespeare."""
    text: dict[str, Any] = {"batch": 1, "length": 512, "tokenizer": "smollm2"}
    texts = {
        "perplexity": wikitext2(part="judge", limit=16, detokenize=True, **text),
        "second": tinyshakespeare(limit=8, **text),
    }

    def calibration(seed: int) -> list[Tensor]:
        drawn = wikitext2(
            part="calibrate", limit=ROWS, batch=STEP_ROWS, length=ROW_TOKENS, detokenize=True,
            tokenizer="smollm2", seed=seed,
        )  # fmt: skip
        return [{"input_ids": tokens} for tokens, _ in drawn.batches]  # type: ignore[misc]

    return Subject(smollm2(), "model.layers.*", calibration, partial(_read, texts, "perplexity"))


def _read(texts: dict[str, LanguageModelling], metric: str, model: nn.Module) -> dict[str, float]:
    return {n: evaluate(model, t, progress=False).metrics[metric] for n, t in texts.items()}


def minilm(quick: bool) -> Subject:
    """Learns and is judged by sentences of an encyclopaedia, and by those of plays."""
    found = SUBJECTS["minilm"]()
    known = minilm_tokenizer()
    plays = data_file("tinyshakespeare/input.txt").read_text(encoding="utf-8")
    lines = sentences_of(plays.split("\n\n"), 512)
    second = Embedding([tokenize(known, lines[i : i + 32]) for i in range(0, len(lines), 32)])

    def calibration(seed: int) -> list[Any]:
        batches = found.calibration(seed)
        return batches[: len(batches) // 2]

    def score(model: nn.Module) -> dict[str, float]:
        other = evaluate(model, second, reference=found.model, progress=False).metrics
        return {"embedding_error": found.score(model), "second": 1 - other["embedding_cosine"]}

    return Subject(found.model, found.layers, calibration, score)


MODELS: dict[str, Callable[[bool], Subject]] = {
    "stories260k": stories260k,
    "minilm": minilm,
    "smollm2": smollm2_135m,
}


@dataclass(frozen=True)
class Rates:
    """Learning rates of an arm's parts; by default the library's."""

    clip: float = LearntClip().rate
    move: float = Perturb().rate
    scales: float = Equalise().rate


@dataclass(frozen=True)
class Job:
    """What every arm is given; ``bits`` are those of activations, which ``rounding`` rounds."""

    model: nn.Module
    recipe: vq.Recipe
    data: list[Any]
    seed: int
    epochs: int
    rounding: ActivationQuantizer | None
    bits: int | None
    rates: Rates


def job_of(work: Work, arm: str, subject: Subject, seed: int, rates: Rates, quick: bool) -> Job:
    """A copy of the model, and what an arm is given with it."""
    model, data = copy.deepcopy(subject.model), subject.calibration(seed)
    recipe = vq.Recipe({subject.layers: KINDS[work.bits](group=work.group, zeros=True)})
    rounding = None
    if work.activation_bits is not None and not arm.startswith(OWN_ROUNDING):
        names = [layer.name for layer in select(model, recipe).layers]
        rounding = ActivationQuantizer(model, names, work.activation_bits)
    epochs = QUICK_EPOCHS if quick else work.epochs
    return Job(model, recipe, data, seed, epochs, rounding, work.activation_bits, rates)


def measured(work: Work, arm: str, seed: int, rates: Rates, quick: bool) -> dict[str, float]:
    """Quantise by an arm, and judge."""
    subject = MODELS[work.subject](quick)
    job = job_of(work, arm, subject, seed, rates, quick)
    start = time.process_time()
    facts = quantised(job, arm)
    facts |= {"seconds": time.process_time() - start, "peak_mb": peak_bytes() / 1e6}
    losses = block_losses(job.model, subject.model, job.data)
    mean = sum(losses) / len(losses)
    variance = sum((loss - mean) ** 2 for loss in losses) / len(losses)
    facts |= {"block_loss": mean, "block_spread": math.sqrt(variance) / mean}
    return subject.score(job.model) | facts


def loss_of_choice(arm: str, rates: Rates) -> float:
    """Mean loss of blocks on a calibration that the arm has not seen."""
    work = WORKS[SMALL]
    subject = MODELS[work.subject](False)
    job = job_of(work, arm, subject, CHOICE, rates, False)
    quantised(job, arm)
    losses = block_losses(job.model, subject.model, subject.calibration(OTHERS))
    return sum(losses) / len(losses)


def rates_for(bench: Bench, arm: str) -> Rates:
    """Rates that are chosen for an arm, one part after the other."""
    found = Rates()
    if bench.quick or arm in UNTRAINED:
        return found

    def choose(arm: str, part: str) -> Rates:
        def loss(rate: float) -> float:
            return alone(loss_of_choice, arm, replace(found, **{part: rate}))

        return replace(found, **{part: bench.choose(SMALL, arm, loss)})

    found = choose("lwc", "clip")
    if (mover := mover_of(arm)) is not None:
        found = choose(mover, "move")
    return choose("omniquant", "scales") if arm.startswith("omniquant") else found


def mover_of(arm: str) -> str | None:
    """The arm that chooses this one's rate of moves, None where weights do not move."""
    if arm.endswith("+sde+cl"):
        return f"sde@{WIDTH}"
    if arm == "prefixquant":
        return "full"
    return None if arm in ("lwc", "omniquant", "duquant") else arm.partition("+cl")[0]


def quantised(job: Job, arm: str) -> dict[str, float]:
    """Quantise in place by an arm; what there is to say of that."""
    learnt = _learnt(job, arm)
    if learnt is not None:
        weights = sum(layer.geometry.weights for layer in learnt.layers)
        moved = sum(layer.moved**2 * layer.geometry.weights for layer in learnt.layers) / weights
        return {
            "bits_per_weight": learnt.bits_per_weight,
            "trained": sum(layer.trained for layer in learnt.layers),
            "moved": math.sqrt(moved),
            **_remaining(job.model, learnt),
        }
    name, _, share = arm.partition("@")
    options: dict[str, Any] = {"beta": float(share)} if share else {}
    found = quantize_(
        job.model, job.data, job.recipe, method_named(name, **options),
        settings=Settings(clip=None if name == "rtn" else Clip(), measure=False),
        activations=job.rounding, seed=job.seed,
    )  # fmt: skip
    return {"bits_per_weight": found.bits_per_weight}


def _learnt(job: Job, arm: str) -> LearnedResult | None:
    """Train by an arm that does; None of others."""
    name, looks, ahead = arm.partition("+cl")
    base, _, width = name.partition("@")
    given, rates = (job.model, job.data, job.recipe), job.rates
    run: dict[str, Any] = {
        "epochs": job.epochs, "look_ahead": int(ahead or 1) if looks else 0, "seed": job.seed,
        "activations": job.rounding, "progress": False, "clip": LearntClip(rates.clip),
    }  # fmt: skip
    method, _, more = base.partition("+")
    band = Perturb(Mask(WIDTH), rates.move)
    if method in OWN_ROUNDING:
        run |= {"activation_bits": job.bits}
        del run["activations"]
        if method == "duquant":
            return duquant_(*given, perturb=band if more else None, **run)
        return prefixquant_(*given, perturb=band if more else Perturb(None, rates.move), **run)
    if method == "omniquant":
        run |= {"equalise": Equalise(rates.scales), "perturb": band if more else None}
        return omniquant_(*given, **run)
    if base == "lwc":
        return lwc_(*given, **run)
    run |= {"rate": rates.move}
    if base == "lsi":
        return lsi_(*given, **run)
    if base == "full":
        return sde_(*given, full=True, **run)
    if width == "random":
        return sde_(*given, width=WIDTH, random=job.seed, **run)
    return sde_(*given, width=int(width), **run) if base == "sde" else None


def _remaining(model: nn.Module, learnt: LearnedResult) -> dict[str, float]:
    """What an arm leaves beside the weights, if it leaves anything."""
    layers = {layer.geometry.name: layer.geometry for layer in learnt.layers}
    weights = sum(g.weights for g in layers.values())
    kept = runtime_tensors(model)
    if not kept:
        return {}
    shapes = {name: (one.dtype, one.shape) for name, one in kept.items()}
    parts = parse_parts(kept[PARTS].data, shapes, layers)
    return {
        "runtime_bits": 8 * sum(part.nbytes for part in parts) / weights,
        "runtime_macs": sum(part.macs_per_token(layers) for part in parts) / weights,
    }


@torch.no_grad()
def block_losses(model: nn.Module, original: nn.Module, data: list[Any]) -> list[float]:
    """Squared error of every block's output over the variance of the original's."""
    names = blocks_of(model)
    sums = torch.zeros(len(names), 4, dtype=torch.float64)
    for batch in data:
        both = [_outputs(one, names, batch) for one in (model, original)]
        for i, (mine, theirs) in enumerate(zip(*both, strict=True)):
            error = (mine - theirs).double().square().sum()
            wide = theirs.double()
            sums[i] += torch.stack(
                [error, wide.sum(), wide.square().sum(), torch.tensor(float(wide.numel()))]
            )
    error, total, squares, count = sums.unbind(1)
    return (error / (squares - total.square() / count)).tolist()


def _outputs(model: nn.Module, names: list[str], batch: Any) -> Iterator[Tensor]:
    observed = Observed(model.eval(), names)
    seen = observed(**batch) if isinstance(batch, dict) else observed(batch)
    return (block[0] for block in seen.blocks)


def planned(bench: Bench) -> Iterator[tuple[Work, str, int]]:
    """Works, arms and seeds to measure: all arms of a seed before the next one."""
    for name in [SMALL] if bench.quick else bench.works:
        work = WORKS[name]
        for seed in bench.seeds[: 1 if bench.quick else work.seeds]:
            for arm in bench.arms:
                if arm in work.arms:
                    yield work, arm, seed


def main() -> None:
    """Measure every row and print the table."""
    bench = Bench("sde", __doc__, seeds=3, works=tuple(WORKS), arms=ARMS)
    for work, arm, seed in planned(bench):
        rates = rates_for(bench, arm)
        run = partial(alone, measured, work, arm, seed, rates, bench.quick)
        setting = f"rates {rates.clip:g} {rates.move:g} {rates.scales:g}"
        bench.measure(work.name, arm, seed, run, setting="" if arm in UNTRAINED else setting)
    bench.finish()


if __name__ == "__main__":
    main()
