"""The figure: every model a panel, every arm with bytes of its own or of its format."""

import re

import pytest

from bench.accuracy_plot import accuracy_against_bytes
from vq.errors import ConfigError


def row(work, arm, metric, mean, bits=2.0, stderr=0.0):
    return {
        "work": work, "arm": arm, "metric": metric, "mean": mean, "stderr": stderr, "seeds": 3,
        "bits_per_weight": bits,
    }  # fmt: skip


LANGUAGE = [
    row("smollm2@2.1", "fp32", "perplexity", 27.0, None),
    row("smollm2@2.1", "qep-ssvq", "perplexity", 54.0, 2.06, 0.5),
    row("smollm2@2.1", "gptaq", "perplexity", 500.0, 2.2),
]
BUS = [
    row("smollm2@2.1", "int8", "bytes_read", 4000.0, 8.0),
    row("smollm2@2.1", "ssvq", "bytes_read", 1000.0, 2.06),
    row("smollm2@2.1", "scalar g192", "bytes_read", 1100.0, 2.08),
    row("smollm2@2.1", "scalar g128z", "bytes_read", 1200.0, 2.2),
]
VISION = [
    row("lite0@2.3", "fp32", "top1", 0.8, None),
    row("lite0@2.3", "fixed-signs", "top1", 0.4, 2.3, 0.02),
    row("lite0@2.3", "ssvq", "bytes_read", 900.0, 2.3),
]


def drawn(rows, monkeypatch):
    """What is drawn: title of the panel and label of the arm to x, y and error."""
    found = {}

    def errorbar(axes, xs, ys, spreads, *, label, **_):
        found[axes, label] = (list(xs), list(ys), list(spreads))

    monkeypatch.setattr("matplotlib.axes.Axes.errorbar", errorbar)
    accuracy_against_bytes(rows)
    return {(axes.get_title(loc="left"), label): what for (axes, label), what in found.items()}


def test_points_are_losses_over_bytes_of_their_format(monkeypatch):
    found = drawn([*LANGUAGE, *BUS, *VISION], monkeypatch)
    assert found["SmolLM2-135M", "SSVQ, QEP"] == (
        [1000.0], [pytest.approx(0.693147)], [pytest.approx(0.5 / 54)],
    )  # fmt: skip
    # Of the scalar formats, the one with the arm's bits.
    assert found["SmolLM2-135M", "GPTAQ"][0] == [1200.0]
    # Fixed signs are stored as others are, and points are linear.
    assert found["EfficientNet-Lite0", "fixed signs, clustered"] == (
        [900.0], [pytest.approx(40)], [2.0],
    )  # fmt: skip
    assert len(found) == 3


def test_an_arm_that_has_bytes_keeps_them(monkeypatch):
    own = row("smollm2@2.1", "qep-ssvq", "bytes_read", 7.0, 2.06)
    found = drawn([*LANGUAGE, *BUS, own], monkeypatch)
    assert found["SmolLM2-135M", "SSVQ, QEP"][0] == [7.0]


def test_panels_are_the_models_that_were_measured():
    alone = accuracy_against_bytes([*LANGUAGE, *BUS])
    assert "SmolLM2-135M" in alone and "EfficientNet-Lite0" not in alone
    assert "int8 reads 4k" in alone and "bytes read on the bus per token" in alone
    third = [row("minilm@w2", "fp32", "embedding_error", 0.0),
             row("minilm@w2", "rtn", "embedding_error", 0.5),
             row("minilm@w2", "rtn", "bytes_read", 10.0)]  # fmt: skip
    three = accuracy_against_bytes([*third, *LANGUAGE, *BUS, *VISION])
    titles = ("MiniLM", "SmolLM2-135M", "EfficientNet-Lite0")
    assert [title in three for title in titles] == [True] * 3
    assert "bytes read on the bus per image" in three and "stories260K" not in three


@pytest.mark.parametrize(
    ("lacking", "what"),
    [("int8 ssvq", "bytes_read of 'ssvq' at 'smollm2@2.1'"), ("fp32", "fp32 of 'smollm2@2.1'")],
)
def test_what_is_absent_is_named(lacking, what):
    rows = [one for one in (*LANGUAGE, *BUS) if one["arm"] not in lacking.split()]
    with pytest.raises(ConfigError, match=f"^figure: {re.escape(what)} must be among the doc"):
        accuracy_against_bytes(rows)
