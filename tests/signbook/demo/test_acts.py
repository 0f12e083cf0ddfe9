"""The demo's path, all of it, with a shorter training."""

import json
import re
from dataclasses import replace

import pytest
from markupsafe import escape

import vq
from signbook.demo import acts as module
from signbook.demo import headline, language, language_rows, samples
from signbook.demo.language import ARMS, Sizes
from tests.hwsim.programs import SMALL
from vq.container import open_container


@pytest.mark.rtl
@pytest.mark.slow
def test_whole_path_on_a_small_budget(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TRAIN_EPOCHS", 6)
    monkeypatch.setattr(module, "FINETUNE_EPOCHS", 2)
    sizes = Sizes(first_epochs=2, second_epochs=2)
    document = require_whole(
        module.run_demo(tmp_path, json_path=tmp_path / "demo.json", sizes=sizes), tmp_path
    )
    assert document["accuracy"]["fp32"] > 0.85 and document["accuracy"]["ssvq"] > 0.85
    measured = document["simulate"]
    assert measured["speedup"] >= 0.90 * measured["traffic_ratio"]


@pytest.mark.rtl
def test_path_without_time_to_learn(tmp_path, monkeypatch):
    """One epoch each, on the instance that is built already: all files, no figures."""
    tile = {"tile_outputs": SMALL.rows}
    methods = {"ssvq": vq.SSVQ(d=8, k=16, **tile), "vq": vq.VQ(d=4, k=64, **tile)}
    arms = {name: vq.Recipe({"blocks.*": method}) for name, method in methods.items()}
    monkeypatch.setattr(module, "ARMS", arms)
    monkeypatch.setattr(module, "AcceleratorConfig", lambda bus_bits: SMALL)
    monkeypatch.setattr(module, "TRAIN_EPOCHS", 1)
    monkeypatch.setattr(module, "FINETUNE_EPOCHS", 1)
    arms = {name: replace(arm, method=replace(arm.method, **tile)) for name, arm in ARMS.items()}
    monkeypatch.setattr(language, "ARMS", arms)
    sizes = Sizes(topics=8, layers=1, first_epochs=1, second_epochs=1, characters=20)
    require_whole(
        module.run_demo(tmp_path, json_path=tmp_path / "demo.json", sizes=sizes), tmp_path
    )


def require_whole(result, tmp_path):
    document = json.loads((tmp_path / "demo.json").read_text())
    assert document == result.document
    assert document["schema"] == "signbook.demo/1"
    assert set(document["accuracy"]) == {
        "fp32", "ssvq_clustered", "ssvq", "vq_clustered", "vq"
    }  # fmt: skip
    bits = document["bits_per_weight"]
    assert 1.5 < bits["ssvq"] <= bits["vq"] < 1.05 * bits["ssvq"]
    measured = document["simulate"]
    spoken = document["language"]
    for one in (measured, spoken["simulate"]):
        assert all(run["bit_exact"] is True for run in one["runs"].values())
    assert {"fp32", "ssvq", "vq", "fixed_signs"} < set(spoken)
    assert 1.5 < spoken["bits_per_weight"]["ssvq"] <= spoken["bits_per_weight"]["vq"]
    with open_container(document["file"]) as container:
        assert len(container.layers) == 16
        container.verify()
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == 6
    assert not re.search(r'(src|href)="(?!#)', page), "the page must need no other file"
    for name, value in headline(document):
        assert escape(name) in page and escape(value).split(" ")[0] in page
    for name, sample in samples(document):
        assert name in page and escape(sample) in page
    for row in language_rows(document):
        assert f"{row['nats per token']:.3f}" in page
    return document
