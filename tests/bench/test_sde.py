"""The bench of SDE: arms at equal bits, the loss of blocks by hand, and a whole measurement."""

import json
import math
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

import bench.sde as study
import vq
from bench.harness import Bench
from vq.perturbation.composition import Clip, Equalise, Perturb
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
    assert {row["work"] for row in rows} == {study.SMALL}
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

    def scored(quick):
        def score(model):
            inputs = []
            model[0][0].register_forward_hook(lambda module, args, out: inputs.append(args[0]))
            model(data(0)[0])
            seen.append(len(inputs[0][0].unique()))
            return {"perplexity": 1.0}

        return study.Subject(network(), "*", data, score)

    monkeypatch.setitem(study.MODELS, "stories260k", scored)
    work = study.WORKS["stories260k@w4a4"]
    for arm in work.arms:
        found = study.measured(work, arm, 0, study.Rates(), True)
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
    rates = study.Rates(clip=0.2, move=0.3, scales=0.4)
    job = study.Job(nn.Identity(), vq.Recipe({"*": None}), [], 3, 7, None, 4, rates)
    for method in ("lwc", "lsi", "sde", "omniquant", "duquant", "prefixquant"):
        monkeypatch.setattr(study, f"{method}_", lambda *args, **given: asked.append(given))

    def calls(*arms):
        asked.clear()
        for arm in arms:
            study._learnt(job, arm)
        return asked

    run = {"epochs": 7, "seed": 3, "activations": None, "progress": False, "clip": Clip(0.2)}
    assert calls("lwc", "lsi", "sde@4", "sde@random", "sde@16+cl2", "full", "gptq") == [
        {"look_ahead": 0} | run,
        {"rate": 0.3, "look_ahead": 0} | run,
        {"rate": 0.3, "width": 4, "look_ahead": 0} | run,
        {"rate": 0.3, "width": 16, "random": 3, "look_ahead": 0} | run,
        {"rate": 0.3, "width": 16, "look_ahead": 2} | run,
        {"rate": 0.3, "full": True, "look_ahead": 0} | run,
    ]
    band, own = Perturb(Mask(16), 0.3), run | {"equalise": Equalise(0.4)}
    assert calls("omniquant", "omniquant+sde+cl") == [
        {"perturb": None, "look_ahead": 0} | own, {"perturb": band, "look_ahead": 1} | own,
    ]  # fmt: skip
    del run["activations"]
    run["activation_bits"] = 4
    assert calls("duquant", "duquant+sde+cl", "prefixquant", "prefixquant+sde+cl") == [
        {"perturb": None, "look_ahead": 0} | run,
        {"perturb": band, "look_ahead": 1} | run,
        {"perturb": Perturb(None, 0.3), "look_ahead": 0} | run,
        {"perturb": band, "look_ahead": 1} | run,
    ]


def test_rates_are_chosen_part_by_part_with_the_arms_that_have_them(monkeypatch, tmp_path):
    """Each rate by a loss that has its least where the test puts it, and only once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["sde"])
    monkeypatch.setattr(study, "alone", lambda function, *given: function(*given))
    best, asked = {"lwc": 1e-2, "omniquant": 1e-3, "full": 1e-1, "sde@16": 3e-2, "lsi": 1e-2}, []

    def loss(arm, rates):
        part = {"lwc": "clip", "omniquant": "scales"}.get(arm, "move")
        asked.append((arm, rates))
        return abs(math.log(getattr(rates, part) / best[arm]))

    monkeypatch.setattr(study, "loss_of_choice", loss)
    bench = Bench("sde", "What.", seeds=3, works=tuple(study.WORKS), arms=study.ARMS)
    rates = partial(study.rates_for, bench)
    assert rates("rtn") == rates("exa@0.5") == study.Rates() and not asked
    assert rates("lwc") == study.Rates(clip=1e-2)
    assert {arm for arm, _ in asked} == {"lwc"}
    assert rates("duquant") == study.Rates(clip=1e-2)
    assert rates("lsi") == study.Rates(1e-2, move=1e-2)
    assert rates("sde@16+cl2") == rates("sde@16") == study.Rates(1e-2, move=3e-2)
    assert rates("prefixquant") == rates("full") == study.Rates(1e-2, move=1e-1)
    assert rates("omniquant+sde+cl") == study.Rates(1e-2, 3e-2, 1e-3)
    assert all(given.clip == 1e-2 for arm, given in asked if arm != "lwc")
    known = len(asked)
    assert rates("prefixquant+sde+cl") == study.Rates(1e-2, move=3e-2)
    assert len(asked) == known


def test_rates_are_judged_on_what_was_not_learnt_from(small, monkeypatch):
    drawn = []
    subject = study.Subject(network(), "*", lambda seed: drawn.append(seed) or data(seed), None)
    monkeypatch.setitem(study.MODELS, "stories260k", lambda quick: subject)
    monkeypatch.setitem(study.WORKS, study.SMALL, replace(study.WORKS[study.SMALL], epochs=1))
    plain, wide = (study.loss_of_choice("lwc", study.Rates(clip=c)) for c in (1e-9, 1.0))
    assert drawn == 2 * [study.CHOICE, study.OTHERS] and 0 < plain != wide


def test_pieces_are_planned(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def plan(*arguments):
        monkeypatch.setattr(sys, "argv", ["sde", *arguments])
        bench = Bench("sde", "What.", seeds=3, works=tuple(study.WORKS), arms=study.ARMS)
        return [(work.name, arm, seed) for work, arm, seed in study.planned(bench)]

    whole = plan()
    assert len(whole) == len(set(whole)) == 3 * 3 * 18 + 3 * 8 + 2 * 5 + 2 * 4
    assert {seed for work, _, seed in whole if work == "smollm2@w2g64"} == {0, 1}
    assert plan("--quick") == [(study.SMALL, arm, 0) for arm in study.ARMS]
    assert plan("--works", "smollm2@w2g64", "--arms", "full", "lsi", "--seeds", "1") == [
        ("smollm2@w2g64", "lsi", 0)
    ]
