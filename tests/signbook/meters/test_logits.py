"""Metrics of logits against their definitions, and labels, tokens and logits that do not fit."""

import math
import statistics
import types

import pytest
import torch
from torch import nn

from signbook.evaluation import evaluate
from signbook.tasks import Classification, LanguageModelling
from tests.signbook.meters.tables import Table, classes
from vq.errors import ConfigError


def test_top1_counts_inputs_not_batches():
    logits = torch.eye(3)[[0, 1, 2, 0, 0]]  # labels are 0 1 2 0 1: four of five are right
    assert evaluate(Table(logits), classes()).metrics == {"top1": 0.8}


def test_logit_kl_is_from_the_reference():
    p, q = torch.randn(2, 5, 3)
    result = evaluate(Table(q), classes(), reference=Table(p))
    expected = nn.functional.kl_div(
        q.log_softmax(1), p.log_softmax(1), log_target=True, reduction="batchmean"
    )
    assert result.metrics["logit_kl"] == pytest.approx(float(expected), rel=1e-5)
    assert result.reference == evaluate(Table(p), classes()).metrics
    assert evaluate(Table(p), classes(), reference=Table(p)).metrics["logit_kl"] == 0


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: types.SimpleNamespace(logits=x)])
def test_language_metrics(wrap):
    tokens = torch.tensor([[1, 2, 3, 0], [1, 3, 0, 2]])
    scored = torch.tensor([[False, True, True, False], [False, True, True, True]])
    q, p = torch.randn(2, 4, 4)  # logits after each token
    task = LanguageModelling([(tokens, scored)])
    result = evaluate(Table(q, wrap), task, reference=Table(p, wrap))
    pairs = [(1, 2), (2, 3), (1, 3), (3, 0), (0, 2)]
    nats = -sum(float(q.log_softmax(1)[a, b]) for a, b in pairs) / 5
    kl = sum(
        float((p.softmax(1) * (p.log_softmax(1) - q.log_softmax(1)))[a].sum()) for a, _ in pairs
    )
    assert result.metrics["nats_per_token"] == pytest.approx(nats, rel=1e-6)
    assert result.metrics["perplexity"] == pytest.approx(math.exp(nats), rel=1e-6)
    assert result.metrics["logit_kl"] == pytest.approx(kl / 5, rel=1e-5)
    assert set(result.reference) == {"nats_per_token", "perplexity"}


def test_first_token_and_padding_do_not_matter():
    q = Table(torch.randn(6, 6))
    rows = [([1, 2, 3], [0, 1, 1]), ([4, 5, 1], [0, 1, 1])]
    plain = LanguageModelling([(torch.tensor([t for t, _ in rows]),
                                torch.tensor([s for _, s in rows]).bool())])  # fmt: skip
    padded = LanguageModelling(
        [(torch.tensor([[*t, 0, 0]]), torch.tensor([[*s, 0, 0]]).bool()) for t, s in rows]
    )
    wanted = evaluate(q, plain).metrics
    assert evaluate(q, padded).metrics == {k: pytest.approx(v) for k, v in wanted.items()}


def test_changed_answers():
    p, q = torch.eye(3)[[0, 1, 2, 0, 0]], torch.eye(3)[[0, 1, 1, 0, 2]]
    found = evaluate(Table(q), classes(), reference=Table(p)).metrics
    assert (found["same_top1"], found["changed_top1"]) == (0.6, pytest.approx(0.4))
    assert "changed_top1" not in evaluate(Table(q), classes()).metrics


def test_names_of_what_is_compared():
    kl = {f"logit_kl{part}" for part in ("", "_median", "_p90", "_p99", "_max", "_floor")}
    table = Table(torch.randn(5, 5))
    found = evaluate(table, classes(), reference=table).metrics
    assert set(found) == {"top1", "same_top1", "changed_top1"} | kl
    found = evaluate(table, texts(torch.arange(4).expand(2, 4)), reference=table).metrics
    own = {"nats_per_token", "perplexity", "perplexity_change", "perplexity_change_se"}
    assert set(found) == {"same_top1"} | own | kl
    assert found["perplexity_change"] == found["perplexity_change_se"] == 0


def test_the_floor_is_what_the_reference_does_to_itself():
    class Noisy(Table):
        def forward(self, index):
            return super().forward(index) + 0.1 * torch.randn(len(index), 3)

    exact = Table(torch.randn(5, 3))
    assert (
        evaluate(Noisy(exact.rows.data), classes(), reference=exact).metrics["logit_kl_floor"] == 0
    )
    found = evaluate(exact, classes(), reference=Noisy(exact.rows.data)).metrics
    assert 1e-4 < found["logit_kl_floor"] < 0.1


def texts(tokens):
    scored = torch.ones(tokens.shape, dtype=torch.bool)
    scored[:, 0] = False
    return LanguageModelling([(tokens, scored)])


def test_change_of_perplexity_has_the_error_of_a_resampling_of_texts():
    torch.manual_seed(0)
    p, q = torch.randn(2, 9, 9)
    tokens = torch.randint(0, 9, (60, 7))
    found = evaluate(Table(q), texts(tokens), reference=Table(p)).metrics

    def nats(table):
        likelihood = table.double().log_softmax(1)[tokens[:, :-1]]
        return -likelihood.gather(2, tokens[:, 1:, None]).squeeze(2).sum(1) / 6

    ours, theirs = nats(q), nats(p)

    def change(chosen):
        return float(ours[chosen].mean().exp() - theirs[chosen].mean().exp())

    assert found["perplexity_change"] == pytest.approx(change(torch.arange(60)), rel=1e-5)
    drawn = [change(torch.randint(0, 60, (60,))) for _ in range(2000)]
    assert found["perplexity_change_se"] == pytest.approx(statistics.stdev(drawn), rel=0.15)


def test_one_text_has_no_standard_error():
    tokens = torch.randint(0, 4, (1, 6))
    found = evaluate(Table(torch.randn(4, 4)), texts(tokens), reference=Table(torch.randn(4, 4)))
    assert "perplexity_change_se" not in found.metrics


RIGHT = torch.tensor([0, 1, 2, 1, 2, 0, 0, 0])
INPUTS = torch.eye(8, 3)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (RIGHT[:, None], r"labels must be \[inputs\], not \[8, 1\]; give the index"),
        (RIGHT[None], r"labels must be \[inputs\], not \[1, 8\]; give the index"),
        (nn.functional.one_hot(RIGHT), r"labels must be \[inputs\], not \[8, 3\]; give the index"),
        (RIGHT[0], r"labels must be \[inputs\], not \[\]; give the index"),
        (RIGHT[:7], r"logits must be \[7, classes\], not \[8, 3\]$"),
        (RIGHT.float(), "labels must be integer, not float32; give the index"),
        (RIGHT == 0, "labels must be integer, not bool; give the index"),
        (RIGHT + 1, "labels must be 0 to 2, which the model knows, not 3$"),
        (RIGHT - 101, "labels must be 0 to 2, which the model knows, not -101$"),
    ],
)
def test_labels_that_do_not_fit(labels, message):
    with pytest.raises(
        ConfigError, match=rf"^evaluation batch 1, \(float32 \[8, 3\], .*\): {message}"
    ):
        evaluate(nn.Linear(3, 3), Classification([(INPUTS, labels)]))


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.uint16, torch.uint64, torch.int32, torch.int64]
)
def test_labels_of_any_integer(dtype):
    labels = torch.tensor([0, 1, 1], dtype=dtype)
    task = Classification([(torch.arange(3), labels)])
    assert evaluate(Table(torch.eye(3)), task).metrics["top1"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("task", [classes(), texts(torch.tensor([[0, 1, 2], [2, 0, 1]]))])
def test_logits_that_are_not_finite(value, task):
    rows = torch.eye(5, 3)
    wrong = rows.clone()
    wrong[0, 1] = value
    for model, reference in ((wrong, None), (wrong, rows), (rows, wrong)):
        beside = None if reference is None else Table(reference)
        with pytest.raises(ConfigError, match=r"^evaluation batch 1, .*: logits must be finite"):
            evaluate(Table(model), task, reference=beside)


def test_padding_may_give_what_is_not_finite():
    rows = torch.zeros(3, 3)
    rows[2] = math.nan
    tokens, scored = torch.tensor([[0, 1, 2]]), torch.tensor([[False, True, False]])
    found = evaluate(Table(rows), LanguageModelling([(tokens, scored)]))
    assert found.metrics["perplexity"] == pytest.approx(3)


TOKENS = torch.tensor([[0, 1, 2]])
SCORED = torch.tensor([[False, True, True]])


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((TOKENS, SCORED.long()), "scored must be bool, not int64$"),
        ((TOKENS, SCORED[:, 1:]), r"scored must be \[1, 3\], not \[1, 2\]$"),
        ((TOKENS[0], SCORED[0]), r"tokens must be \[rows, tokens\], not \[3\]$"),
        ((TOKENS.float(), SCORED), "tokens must be integer, not float32$"),
        ((TOKENS - 1, SCORED), "tokens must be 0 to 2, which the model knows, not -1$"),
        ((TOKENS, SCORED, SCORED), "a batch must be a pair, inputs and which tokens are scored$"),
        (TOKENS, "a batch must be a pair, inputs and which tokens are scored$"),
    ],
)
def test_texts_that_do_not_fit(batch, message):
    with pytest.raises(ConfigError, match=rf"^evaluation batch 1, .*: {message}"):
        evaluate(Table(torch.eye(3)), LanguageModelling([batch]))
