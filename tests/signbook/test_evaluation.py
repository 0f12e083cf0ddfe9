"""Every metric against its definition, and what evaluation refuses."""

import math
import types

import pytest
import torch
from torch import nn

from signbook.evaluation import Evaluation, choose_device, evaluate
from signbook.tasks import Classification, Denoising, Embedding, LanguageModelling, TextProtocol
from tests.signbook.shared import shared
from vq.errors import ConfigError


class Table(nn.Module):
    """A model whose output is known: row ``i`` of a table for input ``i``."""

    def __init__(self, rows, wrap=lambda x: x):
        super().__init__()
        self.rows = nn.Parameter(torch.as_tensor(rows, dtype=torch.float32))
        self.wrap = wrap

    def forward(self, index):
        assert not self.training
        return self.wrap(self.rows[index])


def classes(count=5, parts=(2, 3)):
    labels = torch.arange(count) % 3
    starts = torch.arange(count).split(parts)
    return Classification(list(zip(starts, labels.split(parts), strict=True)))


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
    assert result.metrics == {
        "nats_per_token": pytest.approx(nats, rel=1e-6),
        "perplexity": pytest.approx(math.exp(nats), rel=1e-6),
        "logit_kl": pytest.approx(kl / 5, rel=1e-5),
    }
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


def test_embedding_metrics():
    reference = torch.tensor([[1.0, 0], [0.9, 0.1], [0, 1], [-0.1, 1]])
    model = 3 * reference  # lengths do not count
    task = Embedding([torch.arange(3), torch.tensor([3])])
    result = evaluate(Table(model), task, reference=Table(reference))
    assert result.metrics == {"embedding_cosine": pytest.approx(1), "retrieval_agreement": 1}
    model[3] = torch.tensor([0.5, 0.4])
    result = evaluate(Table(model), task, reference=Table(reference))
    similar = nn.functional.cosine_similarity(model, reference).mean()
    assert result.metrics["embedding_cosine"] == pytest.approx(float(similar))
    near = [
        (nn.functional.normalize(v) @ nn.functional.normalize(v).T).fill_diagonal_(-9).argmax(1)
        for v in (model, reference)
    ]
    share = float((near[0] == near[1]).float().mean())
    assert 0 < share < 1 and result.metrics["retrieval_agreement"] == share


def test_retrieval_of_several_neighbours():
    p, q = torch.randn(2, 40, 8)
    task = Embedding([torch.arange(40)])

    def nearest(v):
        v = nn.functional.normalize(v)
        return (v @ v.T).fill_diagonal_(-9).topk(5).indices.tolist()

    shared = sum(len(set(a) & set(b)) for a, b in zip(nearest(p), nearest(q), strict=True))
    found = evaluate(Table(q), task, reference=Table(p), neighbours=5).metrics
    assert found["retrieval_agreement"] == shared / 200


def test_many_rows_are_compared_in_parts(monkeypatch):
    p, q = torch.randn(2, 50, 6)
    task = Embedding([torch.arange(50)])
    whole = evaluate(Table(q), task, reference=Table(p)).metrics
    monkeypatch.setattr("signbook.meters._ROWS", 7)
    assert evaluate(Table(q), task, reference=Table(p)).metrics == whole


def test_hidden_states_are_averaged_where_the_mask_is_1():
    class Hidden(nn.Module):
        def forward(self, x, attention_mask):
            return types.SimpleNamespace(last_hidden_state=x)

    x = torch.randn(3, 4, 8)
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]])
    means = torch.stack([x[0, :2].mean(0), x[1].mean(0), x[2, 0]])

    class Mean(nn.Module):
        def forward(self, x, attention_mask):
            return means

    task = Embedding([{"x": x, "attention_mask": mask}])
    assert evaluate(Hidden(), task, reference=Mean()).metrics["embedding_cosine"] == pytest.approx(
        1
    )


def test_eps_mse_is_over_all_values():
    noise = [torch.randn(2, 1, 3, 3), torch.randn(1, 1, 3, 3)]
    rows = torch.randn(3, 1, 3, 3)
    task = Denoising([((torch.tensor([0, 1]),), noise[0]), ((torch.tensor([2]),), noise[1])])
    expected = float((rows - torch.cat(noise)).square().mean())
    result = evaluate(Table(rows), task, reference=Table(torch.cat(noise)))
    assert result.metrics == {"eps_mse": pytest.approx(expected)}
    assert result.reference == {"eps_mse": 0}


def test_modes_are_restored():
    model = nn.Sequential(Table(torch.eye(3)[[0, 1, 2, 0, 0]]), nn.Dropout())
    model.train()
    model[1].eval()
    evaluate(model, classes())
    assert (model.training, model[0].training, model[1].training) == (True, True, False)
    assert not any(p.grad is not None for p in model.parameters())


def test_documents():
    result = Evaluation({"top1": 0.5}, {"top1": 0.75})
    assert result.document() == {"schema": "signbook.eval/1", "metrics": {"top1": 0.5}}
    assert result.document(with_reference=True)["reference"] == {"top1": 0.75}
    assert "reference" not in Evaluation({"top1": 0.5}).document(with_reference=True)


TOKENS = torch.tensor([[0, 1, 2]])
SCORED = torch.tensor([[False, True, True]])


@pytest.mark.parametrize(
    ("model", "task", "message"),
    [
        (Table(torch.eye(3)), Classification([]), "data must hold at least one thing to score"),
        (
            Table(torch.eye(3)),
            LanguageModelling([(TOKENS, torch.zeros_like(SCORED))]),
            "data must hold at least one thing to score",
        ),
        (
            Table(torch.eye(3)),
            Embedding([torch.arange(2)]),
            "compared with a reference",
        ),
        (Table(torch.zeros(5)), classes(), r"logits must be \[2, classes\], not \[2\]"),
        (Table(torch.eye(2)), classes(), "model must accept the batches of the data, but index"),
        (nn.Linear(4, 2), classes(), "model must accept the batches of the data, but"),
        (Table(torch.zeros(3)), LanguageModelling([(TOKENS, SCORED)]), r"\[1, 3, 'vocabulary'\]"),
        (
            Table(torch.zeros(3, 2)),
            LanguageModelling([(TOKENS, SCORED)]),
            "tokens must be below the model's 2, not 2",
        ),
        (
            Table(torch.full((3, 3), torch.nan)),
            LanguageModelling([(TOKENS, SCORED)]),
            "metric 'nats_per_token' must be finite, not nan",
        ),
        (
            Table(torch.eye(3), lambda x: (x,)),
            classes(3, (3,)),
            "must give logits, not tuple",
        ),
        (
            Table(torch.zeros(3, 2)),
            Denoising([(torch.arange(3), torch.zeros(3, 4))]),
            r"predicted noise must be \[3, 4\], not \[3, 2\]",
        ),
        (Table(torch.eye(3)), "a text", "task must be one of signbook.tasks, not str"),
        (Table(torch.eye(3)), Classification(["text"]), "a batch must hold tensors, not str"),
        (
            Table(torch.eye(3)),
            Classification([(torch.arange(3), [0, 1, 2])]),
            "a batch must hold tensors, not int",
        ),
    ],
)
def test_what_does_not_fit_is_named(model, task, message):
    with pytest.raises(ConfigError, match=message):
        evaluate(model, task)


def test_lists_are_positional_arguments_as_tuples_are():
    class Two(Table):
        def forward(self, x, shift):
            return super().forward(x + shift)

    model, labels = Two(torch.eye(4)), torch.tensor([1, 2])
    for kind in (tuple, list):
        task = Classification([(kind([torch.tensor([0, 1]), torch.tensor(1)]), labels)])
        assert evaluate(model, task).metrics == {"top1": 1.0}


def test_models_that_cannot_be_compared():
    three, four = Table(torch.randn(5, 3)), Table(torch.randn(5, 4))
    with pytest.raises(ConfigError, match=r"logits must be \[2, 4\] as the reference's"):
        evaluate(three, classes(), reference=four)
    with pytest.raises(ConfigError, match=r"embeddings must be \[5, 4\], not \[5, 3\]"):
        evaluate(three, Embedding([torch.arange(5)]), reference=four)
    with pytest.raises(ConfigError, match="neighbours must be 1 to 4"):
        evaluate(three, Embedding([torch.arange(5)]), reference=three, neighbours=5)


def test_devices():
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type in ("cpu", "cuda")
    for name in ("gpu", "cuda:99"):
        with pytest.raises(ConfigError, match=f"that this machine has, not '{name}'"):
            choose_device(name)


def test_perplexities_say_how_they_were_measured():
    tokens = torch.randint(0, 7, (2, 6))
    scored = torch.ones(2, 6).bool()
    scored[:, 0] = False
    model = nn.Embedding(7, 7)
    protocol = TextProtocol("a text", "letters", 6, None)
    found = evaluate(model, LanguageModelling([(tokens, scored)], protocol))
    assert found.document()["protocol"] == {
        "text": "a text", "tokenizer": "letters", "context_tokens": 6, "stride_tokens": None,
        "scored_tokens": 10,
    }  # fmt: skip
    found = evaluate(model, LanguageModelling([(tokens, scored)]))
    assert found.document()["protocol"] == {"scored_tokens": 10}


def test_protocols_of_the_texts_at_hand():
    shared("tinystories_text")
    shared("stories260K/tok512.bin")
    from signbook.data import tinystories, wikitext2

    assert tinystories(limit=3).protocol == TextProtocol(
        "TinyStories validation, 3 stories from 0", "stories260k", 512, None
    )
    shared("wikitext2/valid.txt")
    assert wikitext2(limit=3).protocol == TextProtocol(
        "WikiText-2 validation, 3 rows", "stories260k", 256, 256
    )
