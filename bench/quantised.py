"""What ``real_language.py`` measures: SmolLM2 quantised in one way, and judged.

Memory is the process's peak: every measurement needs one of its own (:mod:`alone`).
"""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

import vq
from rescomp import Clip, Fitting, Settings, Tuning, quantize_
from rescomp.methods import Method
from signbook.commands.compensated import method_named
from signbook.data.factories import tinyshakespeare, wikitext2
from signbook.evaluation import evaluate
from signbook.tasks import LanguageModelling
from signbook.zoo.smollm2 import smollm2
from vq.container import account
from vq.formats.format import Format
from vq.recipe.footprint import peak_bytes
from vq.recipe.selection import select

__all__ = ["Arm", "Setting", "Work", "bits_of", "measured"]

Codebook = vq.SSVQ | vq.VQ
BLOCKS = 30
#: Linears of a block that share a codebook.
PARTS = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "o": ("self_attn.o_proj",),
    "gate-up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
SCALARS = {2: vq.Int2, 3: vq.Int3, 4: vq.Int4}
#: What each method calls the share of its own term.
SHARE_OF = {"gptaq": "alpha", "gptaq-r": "alpha2", "exa": "beta", "qep": "beta"}
METRICS = ("perplexity", "logit_kl", "logit_kl_median", "logit_kl_p99")
#: Rows of text, one at a time.
TEXT: dict[str, Any] = {"length": 512, "batch": 1, "tokenizer": "smollm2"}


@dataclass(frozen=True)
class Work:
    """What is compared at one number of bits.

    Attributes
    ----------
    name : str
    bits : int
        Of the scalars.
    books : dict
        Codebook formats by name.
    instead : dict
        What a name of these has in one of :data:`PARTS`, by both.
    """

    name: str
    bits: int
    books: dict[str, Codebook]
    instead: dict[tuple[str, str], Codebook] = field(default_factory=dict)


@dataclass(frozen=True)
class Setting:
    """What is chosen for an arm.

    Attributes
    ----------
    group, zeros
        Of scalars, as in :class:`vq.Int2`.
    share : float, optional
        Of the method's own term, in place of the method's default.
    sweeps : int
        Of codebooks that compensate, as in :class:`rescomp.Fitting`.
    """

    group: int = 0
    zeros: bool = False
    share: float | None = None
    sweeps: int = 0

    def __str__(self) -> str:
        said = []
        if self.group:
            said.append(f"groups of {self.group}{' with zeros' * self.zeros}")
        if self.sweeps:
            said.append(f"sweeps {self.sweeps}")
        if self.share is not None:
            said.append(f"share {self.share:g}")
        return ", ".join(said)


@dataclass(frozen=True)
class Arm:
    """An arm of a work by its name, as ``qep-ssvq+blocks``, ``exa@0.5`` or ``vq``."""

    work: Work
    name: str

    @property
    def untuned(self) -> "Arm":
        """The same before anything of it is tuned."""
        return replace(self, name=self.name.partition("+")[0])

    @property
    def tuned(self) -> list[str]:
        """What is tuned behind the solver: "blocks", "scales"."""
        return self.name.split("+")[1:]

    @property
    def book(self) -> str | None:
        """Name of its codebook format; None has scalars."""
        kind = self.untuned.name.rpartition("-")[2]
        return kind if kind in self.work.books else None

    @property
    def solver(self) -> str:
        """The method that chooses codes; empty for fp32, and where codebooks are clustered."""
        if self.name == "fp32":
            return ""
        name = self.name if self.book is None else self.untuned.name.rpartition("-")[0]
        return name.partition("@")[0]

    @property
    def share(self) -> float | None:
        """The share that its name fixes."""
        fixed = self.name.partition("@")[2]
        return float(fixed) if fixed else None

    def method(self, setting: Setting) -> Method:
        """What chooses the codes; scalars of 2 bits have ResComp's mode "org", as its authors'."""
        options: dict[str, float | str | None] = {}
        if self.solver in SHARE_OF:
            options[SHARE_OF[self.solver]] = setting.share if self.share is None else self.share
        if self.book is None and self.work.bits == 2 and self.solver.endswith("-r"):
            options["mode"] = "org"
        return method_named(self.solver, **options)

    def recipe(self, setting: Setting) -> vq.Recipe:
        """All linears of the blocks; embedding and output layer, which are one, stay."""
        return vq.Recipe(
            {
                f"model.layers.{block}.{name}": self._format(setting, block, part)
                for block in range(BLOCKS)
                for part, names in PARTS.items()
                for name in names
            }
        )

    def _format(self, setting: Setting, block: int, part: str) -> Format:
        if self.book is None:
            return SCALARS[self.work.bits](group=setting.group, zeros=setting.zeros)
        book = self.work.instead.get((self.book, part), self.work.books[self.book])
        return replace(book, scale="output", shared=f"{block}.{part}")


def bits_of(model: nn.Module, recipe: vq.Recipe) -> float:
    """Bits per weight over the layers of a recipe, everything counted."""
    counted = account([layer.geometry for layer in select(model, recipe).layers])
    return 8 * sum(a.total_bytes for a in counted) / sum(a.geometry.weights for a in counted)


def measured(
    arm: Arm, setting: Setting, seed: int, rows: int, judged: int, folder: Path | None = None
) -> dict[str, float]:
    """Quantise on ``rows`` rows that ``seed`` draws; judge on ``judged`` others, and a second text.

    ``held_out`` is what settings are chosen by: nats per token of text that no calibration sees.

    Seconds are the processor's, of everything between model and quantised model, with the passes
    of both models over the calibration text; memory is all that the process held until then. Blocks
    that are in ``folder`` are taken from there, and put there when they are done.
    """
    model, facts = smollm2(), {}
    if arm.name != "fp32":
        start = time.process_time()
        facts["bits_per_weight"] = _quantise(model, arm, setting, seed, rows, folder)
        facts["solver_seconds"] = time.process_time() - start
        facts["peak_mb"] = peak_bytes() / 1e6
    text, other = _wikitext2("judge", judged), tinyshakespeare(limit=judged // 2, **TEXT)
    choice = _wikitext2("choose", judged // 2)
    found = evaluate(model, text, reference=smollm2(), progress=False).metrics
    facts["held_out"] = evaluate(model, choice, progress=False).metrics["nats_per_token"]
    facts["shakespeare"] = evaluate(model, other, progress=False).metrics["perplexity"]
    return {name: found[name] for name in METRICS} | facts


def _quantise(
    model: nn.Module, arm: Arm, setting: Setting, seed: int, rows: int, folder: Path | None = None
) -> float:
    """Quantise in place; bits per weight."""
    recipe = arm.recipe(setting)
    data = [{"input_ids": tokens} for tokens, _ in _wikitext2("calibrate", rows, seed).batches]
    if not arm.solver:
        return vq.compress_(
            model, recipe, calibration=data, importance="inputs", progress=False, seed=seed
        ).bits_per_weight
    bits = quantize_(
        model,
        data,
        recipe,
        arm.method(setting),
        settings=Settings(clip=Clip(), measure=False),
        fitting=Fitting(sweeps=setting.sweeps),
        tuning=Tuning() if "blocks" in arm.tuned else None,
        checkpoint_dir=folder,
        resume=folder is not None,
        seed=seed,
    ).bits_per_weight
    if "scales" in arm.tuned:
        vq.distil_(model, data, smollm2(), seed=seed, progress=False)
    return bits


def _wikitext2(part: str, rows: int, seed: int | None = None) -> LanguageModelling:
    return wikitext2(part=part, limit=rows, detokenize=True, seed=seed, **TEXT)
