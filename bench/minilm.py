"""SSVQ, VQ and fixed signs on a real sentence encoder, 2.06 bits per weight.

The 10.6 million weights of MiniLM's block linears are compressed and distilled from the fp32 model
on unlabelled text: rows of 64 tokens, the hidden states after every block against the teacher's.
All arms cluster with the second moments of the inputs (128 rows) as importance. Embeddings stay as
they are, norms and biases train. Judged on 512 sentences of WikiText-2 that no training sees: mean
cosine of their embeddings to the fp32 ones, and how often the nearest neighbour is the same. 64
further rows of text choose the codebook rates.
"""

import copy
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from harness import Bench
from torch import Tensor, nn
from vision import Arm

import vq
from signbook.data.texts import load_stories, load_wikitext2, sentences_of
from signbook.evaluation import evaluate
from signbook.tasks import Embedding
from signbook.zoo.minilm import MiniLM, minilm, minilm_tokenizer, tokenize
from vq.finetune import Rates

WORK = "minilm@2.06"
LINEARS = "bert.encoder.layer.*"
ARMS = {
    "ssvq": Arm(vq.Recipe({LINEARS: vq.SSVQ(d=8, k=256)})),
    "fixed-signs": Arm(vq.Recipe({LINEARS: vq.SSVQ(d=8, k=256)}), fixed_signs=True),
    "vq": Arm(vq.Recipe({LINEARS: vq.VQ(d=4, k=256)})),
}
BATCH, LENGTH, TEST = 16, 64, 512
HELD_ROWS, CALIBRATION_ROWS = 64, 128


class Rows:
    """Shuffled batches of token rows, the same for equal seeds."""

    def __init__(self, tokens: Tensor, steps: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        rounds = -(-steps * BATCH // len(tokens))
        order = torch.cat([torch.randperm(len(tokens), generator=generator) for _ in range(rounds)])
        self._tokens = tokens[order[: steps * BATCH]]

    def __len__(self) -> int:
        return len(self._tokens) // BATCH

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for tokens in self._tokens.split(BATCH)[: len(self)]:
            yield {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


def hidden_loss(student: Any, teacher: Any) -> Tensor:
    """Squared error of the hidden states over their size, and 1 - cosine of the mean over tokens.

    The first is a mean over blocks and tokens; the second is about what a sentence embedding sees.
    """
    states = list(zip(student.hidden_states[1:], teacher.hidden_states[1:], strict=True))
    errors = [
        (g.float() - w.float()).square().mean() / w.float().square().mean() for g, w in states
    ]
    given, wanted = (out.last_hidden_state.float().mean(1) for out in (student, teacher))
    return sum(errors) / len(errors) + 1 - torch.cosine_similarity(given, wanted, dim=-1).mean()


def texts() -> tuple[Tensor, list[str]]:
    """Token rows [rows, 64] to train on, and sentences to judge on."""
    paragraphs = load_wikitext2()
    part = len(paragraphs) * 3 // 4
    tokenizer = minilm_tokenizer()
    text = "\n".join([*paragraphs[:part], *load_stories()])
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    inner = torch.tensor(ids[: len(ids) // (LENGTH - 2) * (LENGTH - 2)]).reshape(-1, LENGTH - 2)
    first = torch.full((len(inner), 1), tokenizer.cls_token_id)
    last = torch.full((len(inner), 1), tokenizer.sep_token_id)
    known = set(sentences_of(paragraphs[:part]))
    fresh = [s for s in sentences_of(paragraphs[part:]) if s not in known]
    return torch.cat([first, inner, last], dim=1), fresh[:TEST]


def train_arm(
    teacher: MiniLM, arm: Arm, rate: float, batches: Rows, calibration: Rows, seed: int
) -> tuple[MiniLM, MiniLM, dict[str, float]]:
    """Compress and distil copies of the model; return it before and after, and what happened."""
    model = copy.deepcopy(teacher)
    model.bert.embeddings.requires_grad_(False)
    result = vq.compress_(
        model, arm.recipe, calibration=calibration, importance="inputs", progress=False, seed=seed
    )
    before = copy.deepcopy(model)
    record = vq.finetune_(
        model.bert,
        batches,
        epochs=1,
        rates=Rates(signs=1e-2, codebooks=rate, rest=1e-3),
        teacher=copy.deepcopy(teacher.bert),
        distillation=vq.Distillation(weight=1, loss=hidden_loss),
        fixed_signs=arm.fixed_signs,
        amp="bf16",
        seed=seed,
    )
    facts = {"bits_per_weight": result.bits_per_weight, "train_loss": record.losses[-1]}
    if record.signs:
        facts["signs_changed"] = record.signs[-1].changed
    return before, model, facts


@torch.no_grad()
def loss_on(model: MiniLM, teacher: MiniLM, tokens: Tensor) -> float:
    """Loss on token rows that are not trained on."""
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    model.eval()
    return float(hidden_loss(model.bert(**inputs), teacher.bert(**inputs)))


def main() -> None:
    """Measure every row and print the table."""
    bench = Bench("minilm", __doc__, seeds=3)
    torch.set_num_threads(1)
    steps = 20 if bench.quick else 600
    teacher = minilm()
    teacher.bert.config.output_hidden_states = True
    rows, sentences = texts()
    held, rows = rows[:HELD_ROWS], rows[HELD_ROWS:]
    calibration = Rows(rows[:CALIBRATION_ROWS], CALIBRATION_ROWS // BATCH, 0)
    tokenizer = minilm_tokenizer()
    task = Embedding(
        [tokenize(tokenizer, sentences[i : i + 32]) for i in range(0, len(sentences), 32)]
    )

    def choose(arm: Arm, rate: float) -> float:
        batches = Rows(rows, max(1, steps // 6), 1000)
        _, trained, _ = train_arm(teacher, arm, rate, batches, calibration, 1000)
        return loss_on(trained, teacher, held)

    def scores(model: nn.Module) -> dict[str, float]:
        found = evaluate(model, task, reference=teacher).metrics
        return {"cosine": found["embedding_cosine"], "neighbour": found["retrieval_agreement"]}

    def measure(arm: Arm, rate: float, seed: int) -> dict[str, float]:
        before, trained, facts = train_arm(
            teacher, arm, rate, Rows(rows, steps, seed), calibration, seed
        )
        clustered = {f"clustered_{name}": value for name, value in scores(before).items()}
        return scores(trained) | clustered | facts

    for name, arm in ARMS.items():
        rate = bench.choose(WORK, name, partial(choose, arm))
        for seed in bench.seeds:
            bench.measure(WORK, name, seed, partial(measure, arm, rate, seed))
    bench.finish()


if __name__ == "__main__":
    main()
