"""The demo's second act: a language model at 1.6 bits per weight, its signs learned or not.

A small Llama learns English from Python's own documentation (:mod:`signbook.zoo.topics`). Copies
of it are compressed to equal bits and trained on, all on the same batches; fp32, which they are
compared with, is trained on as well.
"""

import copy
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import nn

import vq
from signbook.zoo.topics import (
    TopicBatches,
    Topics,
    continued,
    load_topics,
    nats_per_token,
    next_token_loss,
    topics_llama,
    train,
)
from vq.learning.finetune import FinetuneResult, Rates
from vq.learning.rules.refinement import Refinement

__all__ = ["ARMS", "Arm", "Language", "Sizes", "run_language", "train_arm", "train_fp32"]


@dataclass(frozen=True)
class Arm:
    """What one arm compresses with, and which rules its training has."""

    method: vq.SSVQ | vq.VQ
    fixed_signs: bool = False
    refinement: Refinement | None = None


#: Equal bits: VQ gets a few more (1.563 against 1.560), never fewer. All layers share a codebook.
#: VQ's sub-vectors choose their codewords again, without which it is further behind (docs/log.md).
ARMS = {
    "ssvq": Arm(vq.SSVQ(d=8, k=16, shared="blocks")),
    "vq": Arm(vq.VQ(d=4, k=64, shared="blocks"), refinement=Refinement(interval_steps=10)),
    "fixed_signs": Arm(vq.SSVQ(d=8, k=16, shared="blocks"), fixed_signs=True),
}
#: Peak rates of the first training, and of fp32 and the arms in the second.
FIRST_RATE, FP32_RATE = 4e-3, 1e-2
RATES = Rates(codebooks=1e-3, rest=3e-3)


@dataclass(frozen=True)
class Sizes:
    """How much work the act is.

    Attributes
    ----------
    topics : int or None
        So many topics are read, the first by name; None for all.
    layers : int
        Blocks of the model.
    first_epochs, second_epochs : int
        Passes over the text: of the model, then of every arm.
    characters : int
        Length of a sample, its prompt not counted.
    """

    topics: int | None = None
    layers: int = 4
    first_epochs: int = 10
    second_epochs: int = 4
    characters: int = 200

    def load(self, *, choice: bool = False) -> Topics:
        """Load the text."""
        from pydoc_data.topics import topics

        names = islice(sorted(topics), self.topics)
        return load_topics({name: topics[name] for name in names}, choice=choice)


@dataclass
class Language:
    """What came out.

    Attributes
    ----------
    document : dict
        Field ``language`` of the demo's document.
    model : nn.Module
        The arm ``ssvq``.
    training : dict of FinetuneResult
        By arm.
    """

    document: dict[str, Any]
    model: nn.Module
    training: dict[str, FinetuneResult] = field(default_factory=dict)


def run_language(sizes: Sizes, *, seed: int = 0) -> Language:
    """Train, compress in every way, train on, judge on topics that no training saw, and write.

    Parameters
    ----------
    sizes : Sizes
    seed : int
        Of the model, the clustering, the batches and the samples.
    """
    data = sizes.load()
    original = train_fp32(data, sizes, seed=seed)
    models = {"fp32": train_fp32(data, sizes, seed=seed, start=original)}
    training, bits = {}, {}
    for name, arm in ARMS.items():
        models[name] = copy.deepcopy(original)
        bits[name], training[name] = train_arm(models[name], arm, data, sizes, seed=seed)
    nats = {name: nats_per_token(model, data.test) for name, model in models.items()}
    samples = {
        name: continued(model, data, characters=sizes.characters, seed=seed)
        for name, model in models.items()
    }
    document = {**nats, "bits_per_weight": bits, "prompt": data.prompt, "samples": samples}
    return Language(document, models["ssvq"], training)


def train_fp32(
    data: Topics, sizes: Sizes, *, seed: int, start: nn.Module | None = None
) -> nn.Module:
    """Train a model; or a copy of ``start`` further, as long as the arms and on their batches."""
    if start is None:
        torch.manual_seed(seed)
        fresh = topics_llama(sizes.layers)
        return train(fresh, TopicBatches(data, seed=seed), sizes.first_epochs, FIRST_RATE)
    batches = TopicBatches(data, seed=seed + 1)
    return train(copy.deepcopy(start), batches, sizes.second_epochs, FP32_RATE)


def train_arm(
    model: nn.Module, arm: Arm, data: Topics, sizes: Sizes, *, seed: int
) -> tuple[float, FinetuneResult]:
    """Compress the blocks of ``model`` and train it on, in place; return bits per weight, too."""
    result = vq.compress_(model, vq.Recipe({"blocks.*": arm.method}), seed=seed)
    record = vq.finetune_(
        model,
        TopicBatches(data, seed=seed + 1),
        epochs=sizes.second_epochs,
        rates=RATES,
        refinement=arm.refinement,
        fixed_signs=arm.fixed_signs,
        loss=next_token_loss,
        seed=seed,
    )
    return result.bits_per_weight, record
