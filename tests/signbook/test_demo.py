"""The demo's path, all of it, with a shorter training."""

import json
import re

import pytest

from signbook import demo as module
from signbook.demo import headline
from signbook.zoo.digits import DigitBatches, DigitsViT, load_digits
from vq.container import open_container


@pytest.mark.rtl
def test_whole_path_on_a_small_budget(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TRAIN_EPOCHS", 6)
    monkeypatch.setattr(module, "FINETUNE_EPOCHS", 2)
    result = module.run_demo(tmp_path, json_path=tmp_path / "demo.json")
    document = json.loads((tmp_path / "demo.json").read_text())
    assert document == result.document
    assert document["schema"] == "signbook.demo/1"
    assert set(document["accuracy"]) == {
        "fp32", "ssvq_clustered", "ssvq", "vq_clustered", "vq"
    }  # fmt: skip
    assert document["accuracy"]["fp32"] > 0.85 and document["accuracy"]["ssvq"] > 0.85
    bits = document["bits_per_weight"]
    assert 1.5 < bits["ssvq"] <= bits["vq"] < 1.05 * bits["ssvq"]
    measured = document["simulate"]
    assert all(run["bit_exact"] is True for run in measured["runs"].values())
    assert measured["speedup"] >= 0.90 * measured["traffic_ratio"]
    with open_container(document["file"]) as container:
        assert len(container.layers) == 16
        container.verify()
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == 4
    assert not re.search(r'(src|href)="(?!#)', page), "the page must need no other file"
    for name, value in headline(document):
        assert name in page and value.split(" ")[0] in page


def test_split_is_held_out_and_seeded():
    data, again, other = load_digits(0), load_digits(0), load_digits(1)
    assert len(data.train_y) == 1347 and len(data.test_y) == 450
    assert data.test_x.equal(again.test_x) and not data.test_x.equal(other.test_x)
    train = {image.numpy().tobytes() for image in data.train_x}
    assert not any(image.numpy().tobytes() in train for image in data.test_x)


def test_batches_shift_images_and_repeat_by_seed():
    data = load_digits()
    first, again = (list(DigitBatches(data, seed=3)) for _ in range(2))
    assert all(a[0].equal(b[0]) and a[1].equal(b[1]) for a, b in zip(first, again, strict=True))
    batches = DigitBatches(data, seed=3)
    assert not next(iter(batches))[0].equal(next(iter(batches))[0])
    originals = {image.numpy().tobytes() for image in data.train_x}
    unshifted = sum(image.numpy().tobytes() in originals for image in first[0][0])
    assert 0 < unshifted < len(first[0][0]) / 2


def test_block_linears_are_what_the_demo_compresses():
    linears = [
        n for n, _ in DigitsViT().named_modules() if n.endswith(("qkv", "proj", "fc1", "fc2"))
    ]
    chosen = module.ARMS["ssvq"].resolve([n for n, _ in DigitsViT().named_modules() if n])
    assert all(chosen[name] is not None for name in linears)
    assert chosen["head"] is None and chosen["stem.0"] is None
