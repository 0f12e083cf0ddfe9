"""The bench of VQ4DiT: equal bits, the control under two names, and a whole measurement."""

import json

import pytest
import torch

import bench.vq4dit as study
from bench.quantised import bits_of
from signbook.zoo import dit, judge


def test_arms_are_equal_in_bits():
    with torch.device("meta"):
        model = dit.mnist()
    plain, signs = (bits_of(model, study.recipe(arm)) for arm in ("vq4dit@3", "vq4dit@3+signs"))
    assert plain == pytest.approx(2.05, rel=0.02) and signs == pytest.approx(plain, rel=0.02)


def test_names_say_how_many_compete():
    assert [study.candidates_of(arm) for arm in study.ARMS if arm != "control"] == [
        0,
        0,
        1,
        2,
        3,
        3,
    ]


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Models that nothing has trained, and measurements in this process."""
    torch.manual_seed(0)
    model = dit.DiT(8, patch=4, width=16, depth=1).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    monkeypatch.setitem(study.MODELS, "digits", (lambda: model, lambda: judge.digits().eval()))
    monkeypatch.setattr(study, "STEPS", 4)
    monkeypatch.setattr(study, "alone", lambda function, *given: function(*given))
    monkeypatch.chdir(tmp_path)
    return model


def test_the_control_is_measured_once_under_both_names(small, monkeypatch, tmp_path):
    arms = ("fp32", "kmeans", "control", "vq4dit@1", "vq4dit@3+signs")
    monkeypatch.setattr("sys.argv", ["vq4dit", "--quick", "--json", "found.json", "--arms", *arms])
    study.main()
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    found = {(row["arm"], row["metric"]): row["mean"] for row in rows}
    assert found["control", "seconds"] == found["vq4dit@1", "seconds"] > 0
    assert found["fp32", "eps_mse"] == 0 < found["control", "eps_mse"] < found["kmeans", "eps_mse"]
    assert found["vq4dit@3+signs", "moved"] > 0
    assert all((arm, "frechet") in found for arm in arms)


def test_errors_are_taken_on_other_trajectories_and_leave_no_trace(small):
    model = dit.DiT(8, patch=4, width=16, depth=1).eval()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    assert study.error(model, small) == study.error(model, small) > 0
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("arm", ["vq4dit@1", "vq4dit@3+signs"])
def test_arms_learn_at_the_rate_that_was_chosen(arm, small):
    found = [study.made(arm, small, rate, 0, 1)[0] for rate in (1e-2, 1e-2, 1e-1)]
    errors = [study.error(model, small) for model in found]
    assert errors[0] == errors[1] != errors[2]
