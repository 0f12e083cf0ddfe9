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
    monkeypatch.setattr(study, "Study", lambda *given: TINY)
    monkeypatch.setattr(study, "RUNS", 1)
    monkeypatch.chdir(tmp_path)
    yield
    study._goal.cache_clear()
    study._real.cache_clear()


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
    words += ["--works", "ddpm-mnist@w4a8", "unet-mnist@w3a6", "unet-mnist@fp32"]
    words += ["--arms", "a", "e2", "g", "ssvq", "tables"]
    monkeypatch.setattr("sys.argv", words)
    study.main()
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    found = {(row["work"], row["arm"], row["metric"]): row["mean"] for row in rows}
    of_tables = {metric: value for (_, arm, metric), value in found.items() if arm == "tables"}
    assert of_tables["greatest_difference"] == 0
    # time: two of 12 inputs; label: none; two projections of 12 inputs to 8; in each of 3 steps
    saved = of_tables["macs_without"] - of_tables["macs_with"]
    assert saved == 3 * (8 * 12 + 12 * 12 + 2 * 12 * 8)
    assert len(of_tables) == 5
    metrics = {"sqnr_db", "frechet_to_original", "frechet_to_real", "eps_mse", "seconds"}
    by_arm = {key[:2]: {m for w, a, m in found if (w, a) == key[:2]} for key in found}
    integers = {"integer_sqnr_db", "integer_loss_db"}
    assert by_arm.pop(("ddpm-mnist@w4a8", "g")) == metrics | integers
    by_arm.pop(("unet-mnist@fp32", "tables"))
    assert len(by_arm) == 7 and all(told == metrics for told in by_arm.values())
    assert 0 < abs(found["ddpm-mnist@w4a8", "g", "integer_loss_db"]) < 20
    bits = {(row["work"], row["arm"]): row["bits_per_weight"] for row in rows}
    assert bits["unet-mnist@w3a6", "g"] < bits["ddpm-mnist@w4a8", "g"]


def test_the_error_of_noise_is_that_of_the_steps_where_the_arm_comes_by(small):
    goal = study._goal(TINY, "ddpm-mnist", 0)
    other = model()
    with torch.no_grad():
        other.out.bias += 0.5
    with study._compared(other, goal.original) as errors, torch.no_grad():
        TINY.drawn(other, goal.parts[0])
    assert len(errors) == TINY.steps
    assert torch.stack(errors).mean().item() == pytest.approx(0.25, 1e-4)
    assert not other._forward_hooks
