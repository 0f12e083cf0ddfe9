"""Metrics of embeddings against their definitions."""

import math
import types

import pytest
import torch
from torch import nn

from signbook.evaluation import evaluate
from signbook.tasks import Embedding
from tests.signbook.meters.tables import Table
from vq.errors import ConfigError


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
    monkeypatch.setattr("signbook.meters.meter._ROWS", 7)
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


def test_vectors_that_do_not_fit():
    task = Embedding([torch.arange(3)])
    right, wrong = torch.randn(2, 3, 4)
    wrong[1, 2] = math.nan
    where = r"^evaluation batch 1, int64 \[3\]: embeddings must be"
    for model, reference in ((wrong, right), (right, wrong)):
        with pytest.raises(ConfigError, match=f"{where} finite, not NaN"):
            evaluate(Table(model), task, reference=Table(reference))
    with pytest.raises(ConfigError, match=rf"{where} \[inputs, dimensions\], not \[3\]$"):
        evaluate(Table(right[:, 0]), task, reference=Table(right))
    with pytest.raises(ConfigError, match=rf"{where} \[3, 4\], not \[3, 2\]$"):
        evaluate(Table(right[:, :2]), task, reference=Table(right))
