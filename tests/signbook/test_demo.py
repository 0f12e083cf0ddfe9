"""The demo's path, all of it, with a shorter training."""

import json
import re

import pytest

import vq
from signbook import demo as module
from signbook.demo import headline
from tests.hwsim.programs import SMALL
from vq.container import open_container


@pytest.mark.rtl
@pytest.mark.slow
def test_whole_path_on_a_small_budget(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TRAIN_EPOCHS", 6)
    monkeypatch.setattr(module, "FINETUNE_EPOCHS", 2)
    document = require_whole(module.run_demo(tmp_path, json_path=tmp_path / "demo.json"), tmp_path)
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
    require_whole(module.run_demo(tmp_path, json_path=tmp_path / "demo.json"), tmp_path)


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
    assert all(run["bit_exact"] is True for run in measured["runs"].values())
    with open_container(document["file"]) as container:
        assert len(container.layers) == 16
        container.verify()
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == 4
    assert not re.search(r'(src|href)="(?!#)', page), "the page must need no other file"
    for name, value in headline(document):
        assert name in page and value.split(" ")[0] in page
    return document
