"""The bench of W4A8 diffusion: what its arms are, and a whole measurement."""

import json

import pytest
import torch

import bench.diffusion as study
from signbook.data.images import Images
from signbook.zoo import judge
from tests.vq.diffusion import tiny

TINY = study.Study(steps=3, calibration=2, rounds=1, seeds=4, batch=4, images=70)


def model(classes=None):
    """Of so many classes, and none."""
    made = tiny(None if classes is None else classes + 1)
    made.shape, made.classes = (1, 28, 28), classes
    return made


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Networks and a judge that nothing has trained, and measurements in this process."""
    torch.manual_seed(0)
    pictures = Images(torch.randint(256, (80, 1, 28, 28), dtype=torch.uint8), torch.arange(80) % 3)
    own = judge.mnist().eval()
    builds = {"ddpm-mnist": model, "unet-mnist": lambda: model(3)}
    monkeypatch.setattr(study, "MODELS", builds)
    monkeypatch.setattr(study, "mnist_judge", lambda: own)
    monkeypatch.setattr(study, "load_pictures", lambda name, part: pictures)
    monkeypatch.setattr(study, "alone", lambda function, *given: function(*given))
    monkeypatch.setattr(study, "Study", lambda *given: TINY)
    monkeypatch.chdir(tmp_path)


def test_works_and_arms_are_those_of_the_contract():
    assert study.WORKS == (
        "ddpm-mnist@w4a8", "ddpm-mnist@w3a6", "unet-mnist@w4a8", "unet-mnist@w3a6"
    )  # fmt: skip
    assert study.ARMS == ("a", "b", "c", "d", "e1", "e2", "e3", "f", "g", "ssvq")


def test_every_arm_adds_its_part_to_the_one_before():
    found = {arm: study.Study().settings(arm, 8) for arm in study.ARMS}
    schemes = {arm: (s.search, s.tables, s.rows) for arm, (s, _) in found.items()}
    assert schemes["a"] == (False, False, 1) and schemes["b"] == (True, False, 1)
    assert schemes["c"] == (True, True, 1)
    assert {schemes[arm] for arm in study.ARMS[3:]} == {(True, True, None)}
    learning = {arm: x for arm, (_, x) in found.items()}
    assert [learning[arm].rounds for arm in "abcd"] == [0] * 4
    assert len({(x.rounds, x.seeds, x.batch, x.weights, x.steps) for x in learning.values()}) == 2
    assert not learning["e1"].shuffled and learning["e1"].policy == "original"
    assert [learning[arm].policy for arm in ("e2", "e3", "g")] == ["noised", "own", "own"]
    parts = {arm: (learning[arm].distil > 0, learning[arm].freeze > 0) for arm in study.ARMS[4:]}
    assert parts["e3"] == (False, False) and parts["f"] == (True, False)
    assert parts["g"] == parts["ssvq"] == (True, True)


def test_a_whole_measurement(small, monkeypatch, tmp_path):
    words = ["diffusion", "--quick", "--json", "found.json"]
    words += ["--works", "ddpm-mnist@w4a8", "unet-mnist@w3a6", "--arms", "a", "e2", "g", "ssvq"]
    monkeypatch.setattr("sys.argv", words)
    study.main()
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    found = {(row["work"], row["arm"], row["metric"]): row["mean"] for row in rows}
    metrics = {"sqnr_db", "frechet_to_original", "frechet_to_real", "eps_mse", "seconds"}
    assert {metric for _, _, metric in found} == metrics
    assert len(found) == 2 * 4 * len(metrics)
    bits = {(row["work"], row["arm"]): row["bits_per_weight"] for row in rows}
    assert bits["unet-mnist@w3a6", "g"] < bits["ddpm-mnist@w4a8", "g"]
