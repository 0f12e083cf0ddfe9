"""Rules at work: in a loop of one's own, and rules from outside the package."""

import copy
import runpy
from pathlib import Path

import pytest
import torch
from torch import nn

import vq
from tests.vq.learning.models import RECIPE
from tests.vq.learning.rules.own import Gaining, Shrinking
from tests.vq.models import Net, batches
from vq import SSVQ, VQ, Recipe
from vq.errors import ConfigError, ResumeError
from vq.learning.checkpoint import Checkpoints
from vq.learning.rates import CosineAdam, Rates, parameter_groups
from vq.learning.rules.clamping import Clamping
from vq.learning.rules.driver import Rules
from vq.learning.rules.refinement import Refinement
from vq.learning.rules.signs import Freezing

EXAMPLES = Path(__file__).parents[4] / "examples"
FREEZING = Freezing(interval_steps=4, threshold_end=0.005)
REFINEMENT = Refinement(interval_steps=4, margin=0)
OWN = [Shrinking(0.05), Gaining(1e-2)]
RATES = Rates(signs=0.1)
STEPS = 16  # two epochs


def mixed():
    """A network with a layer that has signs and one that has none."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 64), nn.LayerNorm(64), nn.ReLU(), nn.Linear(64, 5))
    vq.compress_(model, Recipe({"0": SSVQ(d=8, k=8), "3": VQ(d=5, k=16)}))
    return model


def finetuned(**settings):
    model = mixed()
    settings = {"freezing": FREEZING, "refinement": REFINEMENT, "rules": OWN, **settings}
    return model, vq.finetune_(model, batches(), epochs=2, rates=RATES, **settings)


def start(model):
    return Rules(model, [Clamping(), FREEZING, REFINEMENT, *OWN], STEPS, RATES)


def by_hand(model, rules, steps, update):
    """A loop of one's own; ``update`` takes the optimiser's step."""
    data = batches() * 2
    for step in steps:
        x, y = data[step]
        model.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        rules.before_step()
        update(step)
        rules.after_step()


def assert_same(a, b):
    for name, value in a.state_dict().items():
        assert torch.equal(value, b.state_dict()[name]), name


def test_another_loop_gives_what_finetune_gives_to_the_bit():
    expected, result = finetuned()
    model = mixed()
    rules = start(model)
    by_hand(model, rules, range(STEPS), CosineAdam(parameter_groups(model, RATES), STEPS).step)
    assert_same(expected, model)
    told = rules.telemetry()
    assert told["refinement"]["reassigned"] == result.reassigned > 0
    assert told["signs"]["changed"] == result.signs[-1].changed > 0
    assert {name: told[name] for name in ("shrinking", "gain")} == {
        name: numbers[-1] for name, numbers in result.rules.items()
    }
    assert rules.note().endswith("  shrinking")


def test_rules_act_and_leave_no_trace_on_the_model():
    model, result = finetuned()
    without, _ = finetuned(rules=[])
    assert model[3].weight.norm() < without[3].weight.norm()
    assert result.rules["gain"][-1] != {"0": 1.0, "1": 1.0}
    assert not any(module._forward_hooks for module in model.modules())


def test_state_continues_a_loop():
    def run(*parts):
        model, state = mixed(), None
        for part in parts:
            rules = start(model)
            if state is not None:
                rules.load_state_dict(state)
            # SGD without momentum has no state of its own.
            sgd = torch.optim.SGD(model.parameters(), lr=0.05)
            by_hand(model, rules, part, lambda step, sgd=sgd: sgd.step())
            state = copy.deepcopy(rules.state_dict())
            rules.close()
        return model, rules.telemetry()

    whole, expected = run(range(STEPS))
    resumed, told = run(range(7), range(7, STEPS))
    assert_same(whole, resumed)
    assert told == expected


def test_own_rules_resume_to_the_bit(tmp_path, monkeypatch):
    whole, result = finetuned()
    settings = {"checkpoint_dir": tmp_path, "checkpoint_steps": 5}
    save = Checkpoints.save

    def dying(self, at, state):
        save(self, at, state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoints, "save", dying)
        finetuned(**settings)
    resumed, again = finetuned(resume=True, **settings)
    assert_same(whole, resumed)
    assert again.to_json() == {**result.to_json(), "settings": again.settings}
    assert again.settings["rules"] == ["Shrinking(weight=0.05)", "Gaining(rate=0.01)"]
    for rules in ([], [Shrinking(0.06), OWN[1]]):
        with pytest.raises(ResumeError, match="from this run, but its settings differs"):
            finetuned(resume=True, rules=rules, **settings)


def test_two_rules_of_one_name_are_refused():
    model = mixed()
    with pytest.raises(ConfigError, match=r"^rules must have a name each, but two are 'gain'"):
        Rules(model, [Gaining(1.0), Gaining(2.0)], STEPS)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("steps", [0, float("inf")])
def test_a_run_without_an_end_is_refused(steps):
    with pytest.raises(ConfigError, match=r"^total_steps must be positive and finite, not "):
        Rules(mixed(), [], steps)


def test_the_state_of_other_rules_is_refused():
    state = Rules(mixed(), OWN[:1], STEPS).state_dict()
    with pytest.raises(ConfigError, match=r"^state must be of the rules gain, not of shrinking; "):
        Rules(mixed(), OWN[1:], STEPS).load_state_dict(state)


def test_any_training_loop_works():
    model = Net()
    vq.compress_(model, RECIPE)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    rules = Rules(model, [Freezing()], 40)
    losses = []
    for _ in range(5):
        for x, y in batches():
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            rules.before_step()
            optimizer.step()
            rules.after_step()
            losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_the_short_loop_trains(capsys):
    runpy.run_path(str(EXAMPLES / "own_loop.py"), run_name="__main__")
    first, last = (float(word) for word in capsys.readouterr().out.split() if word[0].isdigit())
    assert last < 0.3 * first
