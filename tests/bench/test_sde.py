"""The bench of SDE: arms at equal bits, the loss of blocks by hand, and a whole measurement."""

import json
import sys

import pytest
import torch
from torch import nn

import bench.sde as study
import vq
from bench.harness import Bench
from vq.methods.sde import sde_
from vq.perturbation.composition import Perturb
from vq.perturbation.mask import Mask

ARMS = ("rtn", "lwc", "lsi", "sde@4", "sde@random", "sde@16+cl1", "full", "gptq", "exa@0.5",
        "omniquant", "omniquant+sde+cl", "duquant", "prefixquant+sde+cl")  # fmt: skip


def network():
    torch.manual_seed(0)
    return nn.Sequential(*[nn.Sequential(nn.Linear(20, 20), nn.Tanh()) for _ in range(2)]).eval()


def data(seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(32, 20, generator=generator) for _ in range(4)]


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A small model in this process."""

    def subject(quick):
        return study.Subject(network(), "*", data, lambda m: {"nats_per_token": 1.0, "second": 2.0})

    monkeypatch.setitem(study.MODELS, "stories260k", subject)
    monkeypatch.setattr(study, "alone", lambda function, *given: function(*given))
    monkeypatch.chdir(tmp_path)


@pytest.mark.filterwarnings("ignore:block .* calibration should give more values")
@pytest.mark.filterwarnings("ignore:equalisation left out", "ignore:no tokens are put in front")
def test_arms_are_equal_in_bits_and_tell_what_they_did(small, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["sde", "--quick", "--json", "found.json", "--arms", *ARMS])
    study.main()
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert {row["work"] for row in rows} == {study.QUICK}
    assert len({row["bits_per_weight"] for row in rows}) == 1
    found = {(row["arm"], row["metric"]): row["mean"] for row in rows}
    for arm in ARMS:
        assert found[arm, "block_loss"] > 0 and found[arm, "seconds"] >= 0
        assert (arm, "nats_per_token") in found and (arm, "second") in found
        assert ((arm, "trained") in found) == (arm not in ("rtn", "gptq", "exa@0.5"))
    assert found["lsi", "trained"] < found["sde@4", "trained"] < found["full", "trained"]
    assert found["sde@random", "trained"] == found["sde@16+cl1", "trained"]
    assert found["duquant", "runtime_bits"] > 0 and ("lwc", "runtime_bits") not in found
    assert found["lwc", "moved"] == 0 < found["lsi", "moved"]


@pytest.mark.filterwarnings("ignore:equalisation left out", "ignore:block .* should give more")
@pytest.mark.filterwarnings("ignore:no tokens are put in front")
def test_activations_are_rounded_in_calibration_and_scores(small, monkeypatch):
    seen = []
    subject = study.MODELS["stories260k"]

    def scored(quick):
        def score(model):
            inputs = []
            model[0][0].register_forward_hook(lambda module, args, out: inputs.append(args[0]))
            model(data(0)[0])
            seen.append(len(inputs[0][0].unique()))
            return {"perplexity": 1.0}

        return study.Subject(network(), "*", data, score)

    assert subject
    monkeypatch.setitem(study.MODELS, "smollm2", scored)
    work = study.WORKS["smollm2@w4a4"]
    for arm in work.arms:
        found = study.measured(work, arm, 0, quick=True)
        assert found["bits_per_weight"] > 4
    assert len(seen) == 8 and max(seen) <= 16


def test_losses_of_blocks_by_hand():
    model, original = network(), network()
    vq.compress_(model, vq.Recipe({"*": vq.Int2(group=4)}), progress=False)
    whole, batches = torch.cat(data(0)), data(0)
    first, second = study.block_losses(model, original, batches)
    with torch.no_grad():
        mine, theirs = model[0](whole), original[0](whole)
        assert first == pytest.approx(float((mine - theirs).square().mean() / theirs.var()), 1e-3)
        mine, theirs = model[1](mine), original[1](theirs)
    assert second == pytest.approx(float((mine - theirs).square().mean() / theirs.var()), 1e-3)


def test_arms_say_what_is_called(monkeypatch):
    asked = []
    job = study.Job(nn.Identity(), vq.Recipe({"*": None}), [], 3, 7, None, 4)
    monkeypatch.setattr(study, "sde_", lambda *args, **given: asked.append(given))
    for arm in ("sde@4", "sde@random", "sde@16+cl2", "full"):
        study._learnt(job, arm)
    run = {"epochs": 7, "seed": 3, "activations": None, "progress": False}
    assert asked == [
        {"width": 4, "look_ahead": 0} | run,
        {"width": 16, "random": 3, "look_ahead": 0} | run,
        {"width": 16, "look_ahead": 2} | run,
        {"full": True, "look_ahead": 0} | run,
    ]
    assert study._learnt(job, "gptq") is None
    asked.clear()
    monkeypatch.setattr(study, "omniquant_", lambda *args, **given: asked.append(given))
    for arm in ("omniquant", "omniquant+sde+cl"):
        study._learnt(job, arm)
    assert asked == [
        {"look_ahead": 0} | run, {"perturb": Perturb(Mask(16)), "look_ahead": 1} | run,
    ]  # fmt: skip
    asked.clear()
    for name in ("duquant", "prefixquant"):
        monkeypatch.setattr(study, f"{name}_", lambda *args, **given: asked.append(given))
    for arm in ("duquant", "prefixquant+sde+cl"):
        study._learnt(job, arm)
    run = {"activation_bits": 4, "epochs": 7, "seed": 3, "progress": False}
    assert asked == [
        {"look_ahead": 0} | run, {"perturb": Perturb(Mask(16)), "look_ahead": 1} | run,
    ]  # fmt: skip
    assert sde_ is not study.sde_


def test_pieces_are_planned(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def plan(*arguments):
        monkeypatch.setattr(sys, "argv", ["sde", *arguments])
        bench = Bench("sde", "What.", seeds=3, works=tuple(study.WORKS), arms=study.ARMS)
        return [(work.name, arm, seed) for work, arm, seed in study.planned(bench)]

    whole = plan()
    assert len(whole) == len(set(whole)) == 3 * 3 * 18 + 2 * 5 + 2 * 8
    assert {seed for work, _, seed in whole if work == "smollm2@w2g64"} == {0, 1}
    assert plan("--quick") == [(study.QUICK, arm, 0) for arm in study.ARMS]
    assert plan("--works", "smollm2@w2g64", "--arms", "full", "lsi", "--seeds", "1") == [
        ("smollm2@w2g64", "lsi", 0)
    ]
