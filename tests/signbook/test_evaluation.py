"""What evaluation does with models and data, and what it refuses."""

import re

import pytest
import torch
from torch import nn

from signbook.evaluation import Evaluation, evaluate
from signbook.tasks import Classification, Embedding, LanguageModelling, TextProtocol
from tests.signbook.meters.tables import Table, classes
from tests.signbook.shared import shared
from vq.errors import ConfigError


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
    drawn = Evaluation({"frechet": 1.0}, samples={"model": [[[0]]], "reference": [[[9]]]})
    assert drawn.document()["samples"] == {"model": [[[0]]]}
    assert drawn.document(with_reference=True)["samples"] == drawn.samples


TOKENS = torch.tensor([[0, 1, 2]])
SCORED = torch.tensor([[False, True, True]])


@pytest.mark.parametrize(
    ("model", "task", "message"),
    [
        (
            Table(torch.eye(3)),
            Classification([]),
            "evaluation data must hold at least one batch, not none",
        ),
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
        (
            Table(torch.eye(2)),
            classes(),
            r"model must accept evaluation batch 2, .*, but raises Index",
        ),
        (
            nn.Linear(4, 2),
            classes(),
            r"model must accept evaluation batch 1, \(int64 \[2\], int64 ",
        ),
        (
            Table(torch.zeros(3)),
            LanguageModelling([(TOKENS, SCORED)]),
            r"logits must be \[1, 3, vocabulary\], not \[1, 3\]",
        ),
        (
            Table(torch.zeros(3, 2)),
            LanguageModelling([(TOKENS, SCORED)]),
            "tokens must be 0 to 1, which the model knows, not 2",
        ),
        (
            Table(torch.full((3, 3), torch.nan)),
            LanguageModelling([(TOKENS, SCORED)]),
            "logits must be finite, not NaN",
        ),
        (
            Table(torch.eye(3), lambda x: (x,)),
            classes(3, (3,)),
            "must give logits, not tuple",
        ),
        (
            Table(torch.eye(3), lambda x: 1e4 * x),
            LanguageModelling([(TOKENS, SCORED)]),
            "metric 'perplexity' must be finite, not inf",
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


def rows(*sizes):
    return (torch.randn(sizes), torch.zeros(sizes[0]).long())


class Broken:
    """A data set whose second batch cannot be read."""

    def __len__(self):
        raise RuntimeError("nobody knows")

    def __iter__(self):
        yield rows(2, 4)
        raise OSError("disk\nis gone")


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        (5, "evaluation data must be batches to iterate over, not int$"),
        (Broken(), "evaluation data must give batch 2, not raise OSError: disk$"),
        ([rows(2, 4), rows(0, 4)], "evaluation batch 2 must not be empty, and is (float32 [0, 4]"),
        ([rows(2, 4), ()], "evaluation batch 2 must not be empty, and is ()$"),
        ([rows(2, 5)], "model must accept evaluation batch 1, (float32 [2, 5], int64 [2]), but r"),
        ([rows(2, 4), (torch.ones(2, 4).double(), rows(2)[1])],
         "model must accept evaluation batch 2, (float64 [2, 4], int64 [2]), but raises RuntimeE"),
        ([(torch.ones(2, 4).long(), rows(2)[1])], "model must accept evaluation batch 1, (int64"),
        ([({"x": torch.ones(2, 4)}, rows(2)[1])],
         "model must accept evaluation batch 1, ({x: float32 [2, 4]}, int64 [2]), but raises Type"),
        ([torch.ones(2, 4)], "evaluation batch 1, float32 [2, 4]: a batch must be a pair, input"),
    ],
)  # fmt: skip
def test_data_that_cannot_be_used_are_named(batches, message):
    pattern = re.escape(message.removesuffix("$")) + "$" * message.endswith("$")
    with pytest.raises(ConfigError, match=f"^{pattern}") as caught:
        evaluate(nn.Linear(4, 3), Classification(batches))
    assert "\n" not in str(caught.value)


def test_a_model_that_fails_in_its_own_way_is_named_and_keeps_its_mode():
    class Fussy(nn.Module):
        def forward(self, x):
            raise KeyError("mask")

    model = Fussy().train()
    with pytest.raises(
        ConfigError, match=r"^model must accept evaluation batch 1, .* KeyError: 'mask'$"
    ):
        evaluate(model, classes())
    assert model.training


def test_generators_are_read_once():
    batches = iter(list(classes().batches))
    table = Table(torch.eye(3)[[0, 1, 2, 0, 0]])
    assert evaluate(table, Classification(batches)).metrics == {"top1": 0.8}
    with pytest.raises(
        ConfigError, match=r"^evaluation data must hold at least one batch, not none; they give "
    ):
        evaluate(table, Classification(batches))


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
