"""Sections of evaluations: metrics beside the reference's, and sheets of what both drew."""

import json
import re
from typing import Any

import pydantic
import pytest

from signbook.reporting.evaluated import Evaluated, evaluated_section

IMAGE = [[0, 255], [51, 0]]
DOCUMENT = {
    "schema": "signbook.eval/1",
    "metrics": {"frechet": 2.5, "same_class": 0.5},
    "reference": {"frechet": 1.0},
    "samples": {"model": [IMAGE], "reference": [[[0, 255], [0, 51]]]},
}


def read(document: dict[str, Any]) -> Evaluated:
    return Evaluated.model_validate_json(json.dumps(document))


def test_metrics_stand_beside_those_of_the_reference():
    section = evaluated_section(3, read(DOCUMENT), "dit.json")
    assert section.title == "3. Evaluation: dit"
    metrics, samples = section.parts
    assert metrics.table is not None and metrics.note == ""
    assert metrics.table.head == ["metric", "model", "reference"]
    assert metrics.table.rows == [["frechet", "2.5", "1"], ["same_class", "0.5", "–"]]
    assert samples.plot is not None
    arms = re.findall(r">(\w+)</text>", samples.plot)
    assert arms == ["reference", "model", "difference"]


def test_difference_is_of_brightness():
    samples = read(DOCUMENT).samples
    assert samples is not None
    arms = samples.arms()
    assert arms["difference"].tolist() == [[[0, 0], [0.2, 0.2]]]
    assert arms["model"].tolist() == [[[0, 1], [0.2, 0]]]


def test_what_a_document_lacks_is_left_out():
    text = {"schema": "signbook.eval/1", "metrics": {"perplexity": 27.26}}
    (metrics,) = evaluated_section(1, read(text), "a.json").parts
    assert metrics.table is not None and metrics.table.rows == [["perplexity", "27.26"]]
    protocol = {"tokenizer": "own", "stride_tokens": None, "scored_tokens": 90}
    (metrics,) = evaluated_section(1, read(text | {"protocol": protocol}), "a.json").parts
    assert metrics.note == "How the text was cut: tokenizer=own  scored_tokens=90"
    alone = read(DOCUMENT | {"samples": {"model": [IMAGE]}})
    plot = evaluated_section(1, alone, "a.json").parts[1].plot
    assert plot is not None and "difference" not in plot and plot.count("<text") == 1


def test_drift_is_drawn():
    drift = {"steps": [1000, 500], "relative_error": [0, 0.25]}
    *_, part = evaluated_section(1, read(DOCUMENT | {"drift": drift}), "a.json").parts
    assert part.title == "Drift" and part.plot is not None and "t = 1000 to 500" in part.note
    with pytest.raises(pydantic.ValidationError, match="steps and relative_error must be equally"):
        read(DOCUMENT | {"drift": {"steps": [1000], "relative_error": [0, 0.25]}})


@pytest.mark.parametrize("metrics", [{}, DOCUMENT["metrics"]])
def test_old_documents_are_read(metrics):
    """Those of 0.1.0 have metrics alone, perhaps none."""
    section = evaluated_section(1, read({"schema": "signbook.eval/1", "metrics": metrics}), "a")
    assert len(section.parts) == 1
