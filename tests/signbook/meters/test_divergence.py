"""Divergence of logits: quantiles, first choices, parts."""

import numpy as np
import pytest
import torch

from signbook.meters.divergence import Divergence
from vq.errors import ConfigError


def test_quantiles_are_over_all_rows_of_all_batches():
    torch.manual_seed(0)
    p, q = torch.randn(2, 501, 7)
    found = Divergence()
    for rows in torch.arange(501).split(200):
        found.add(q[rows], p[rows])
    kl = (p.softmax(1) * (p.log_softmax(1) - q.log_softmax(1))).sum(1)
    assert found.metrics() == {
        "logit_kl": pytest.approx(float(kl.mean()), rel=1e-5),
        "logit_kl_median": pytest.approx(float(kl.median()), rel=1e-5),
        "logit_kl_p90": pytest.approx(np.quantile(kl, 0.9), rel=1e-5),
        "logit_kl_p99": pytest.approx(np.quantile(kl, 0.99), rel=1e-5),
        "logit_kl_max": pytest.approx(float(kl.max()), rel=1e-5),
        "same_top1": int((p.argmax(1) == q.argmax(1)).sum()) / 501,
    }


def test_equal_logits_do_not_diverge():
    found, logits = Divergence(), torch.randn(9, 5)
    found.add(logits, logits + 1)  # the same likelihoods
    assert found.metrics()["logit_kl_max"] == pytest.approx(0, abs=1e-12)
    assert found.metrics()["same_top1"] == 1


def test_many_rows_are_compared_in_parts(monkeypatch):
    whole, parts = Divergence(), Divergence()
    p, q = torch.randn(2, 50, 6)
    whole.add(q, p)
    monkeypatch.setattr("signbook.meters.meter._ROWS", 7)
    parts.add(q, p)
    assert parts.metrics() == whole.metrics()


def test_classes_of_both_are_as_many():
    with pytest.raises(
        ConfigError, match=r"^logits must be \[2, 4\] as the reference's, not \[2, 3\]$"
    ):
        Divergence().add(torch.zeros(2, 3), torch.zeros(2, 4))
