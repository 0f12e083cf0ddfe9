"""Steps of grids learn by the gradient of LSQ, and the file is the trained model, bit for bit."""

import copy

import pytest
import torch
from torch import nn

import vq
from tests.vq.models import unchanged
from vq.errors import ConfigError, TrainingError
from vq.formats.clip import Clip, fit_grid
from vq.formats.model import compressed_layers
from vq.formats.remaining import Remaining
from vq.formats.scalar import PER_OUTPUT
from vq.formats.scalar_weights import ScalarWeight
from vq.learning.rules.steps import Steps

RATES = vq.Rates(rest=1e-3)
RULES = (Steps(1e-2),)


def pair(kind):
    torch.manual_seed(0)
    original = nn.Sequential(nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 6))
    model = copy.deepcopy(original)
    vq.compress_(model, vq.Recipe({"*": kind}))
    return model, original


def inputs(count=4):
    return list(torch.randn(count, 16, 24, generator=torch.Generator().manual_seed(1)))


def squared(given, wanted):
    return (given - wanted).square().mean()


def learnt(kind, *, model=None, rules=RULES, rates=RATES, **settings):
    fresh, original = pair(kind)
    model = model or fresh
    distillation = vq.Distillation(weight=1, loss=squared)
    settings = {"epochs": 4, "seed": 0, **settings}
    result = vq.finetune_(
        model, inputs(), teacher=original, distillation=distillation, rates=rates, rules=rules,
        **settings,
    )  # fmt: skip
    with torch.no_grad():
        error = sum(float(squared(model(x), original(x))) for x in inputs())
    return model, result, error


@pytest.mark.parametrize(
    "kind",
    [vq.Int4(group=PER_OUTPUT), vq.Int3(group=PER_OUTPUT, zeros=True), vq.Int4(group=8)],
    ids=["int4", "int3 with zeros", "groups"],
)
def test_the_file_is_the_trained_model(kind, tmp_path):
    start, _ = pair(kind)
    model, result, _ = learnt(kind)
    before = {layer.name: layer.weight.scale for layer in compressed_layers(start)}
    for layer in compressed_layers(model):
        scale = layer.weight.scale
        assert scale.shape == before[layer.name].shape and layer.weight.gain is None
        assert torch.equal(scale, scale.half().float())
        assert (scale != before[layer.name]).float().mean() > 0.8
    assert result.rules["steps"][-1]["weights_moved"] > 1e-3
    vq.save(model, tmp_path / "a.vq.safetensors")
    loaded = vq.load(tmp_path / "a.vq.safetensors", into=pair(kind)[1])
    assert all(torch.equal(loaded[i].weight, model[i].weight) for i in (0, 2))


def test_a_model_is_stored_as_it_is_while_its_steps_learn(tmp_path):
    model, original = pair(vq.Int4(group=PER_OUTPUT))
    for layer in compressed_layers(model):
        layer.weight.free_steps().data.mul_(1.1)
    vq.save(model, tmp_path / "a.vq.safetensors")
    loaded = vq.load(tmp_path / "a.vq.safetensors", into=original)
    assert torch.equal(loaded[0].weight, model[0].weight)
    seen = model[0].weight.detach().clone()
    for layer in compressed_layers(model):
        layer.weight.fix_steps()
    assert torch.equal(model[0].weight, seen)


def test_steps_that_learn_fit_better():
    """Alone: weights hardly move."""
    kind, still = vq.Int3(group=PER_OUTPUT), vq.Rates(rest=1e-9)
    before = learnt(kind, rules=(), rates=still, epochs=1)[2]
    assert learnt(kind, rates=still, epochs=20)[2] < 0.9 * before


def test_the_gradient_is_that_of_lsq():
    g = vq.Int4(group=PER_OUTPUT).geometry("a", "linear", (3, 40))
    weight = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    grid = fit_grid(weight, g, Clip())
    module = ScalarWeight(g, weight, grid)
    gain = module.free_steps()
    own = weight.clone().requires_grad_()
    upstream = torch.randn(3, 40, generator=torch.Generator().manual_seed(1))
    module(own).backward(upstream)
    ratio = weight / grid.scale
    inside = (ratio >= -8) & (ratio <= 7)
    assert 0 < (~inside).sum() < 40
    slope = torch.where(inside, ratio.round() - ratio, ratio.clamp(-8, 7))
    wanted = (upstream * slope).sum(1, keepdim=True) * grid.scale
    torch.testing.assert_close(gain.grad, wanted)
    torch.testing.assert_close(own.grad, torch.where(inside, upstream, 0.0))


class Halving(Remaining):
    """A part with a step that learns."""

    kind = "halving"

    def __init__(self):
        self.step, self.gain = torch.full((2,), 0.5), None

    def __call__(self, module, args):
        gain = 1.0 if self.gain is None else self.gain
        return (args[0] * (self.step * gain).mean(),)

    def free_steps(self):
        self.gain = nn.Parameter(torch.ones(2))
        return self.gain

    def fix_steps(self):
        self.step, self.gain = self.step * self.gain.detach(), None


def with_part(kind=None):
    model, _ = pair(kind or vq.Int4(group=PER_OUTPUT))
    part = Halving()
    model[2].register_forward_pre_hook(part)
    return model, part


def test_a_run_that_was_stopped_goes_on_bit_for_bit(tmp_path, monkeypatch):
    def run(**settings):
        model, part = with_part()
        learnt(vq.Int4(group=PER_OUTPUT), model=model, checkpoint_steps=3, **settings)
        return model, part

    whole, part = run()

    stop = vq.learning.rules.steps.StepLearner.after_step

    def until(self, step):
        stop(self, step)
        if step == 8:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(vq.learning.rules.steps.StepLearner, "after_step", until)
        run(checkpoint_dir=tmp_path / "run")
    again, other = run(checkpoint_dir=tmp_path / "run", resume=True)
    assert torch.equal(part.step, other.step) and not torch.equal(part.step, torch.full((2,), 0.5))
    state = again.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in whole.state_dict().items())


def test_whatever_fails_steps_are_as_before(monkeypatch):
    model, part = with_part()
    before = copy.deepcopy(model.state_dict())
    monkeypatch.setattr("vq.learning.loop.Training._checkpoint", raise_stop)
    with pytest.raises(KeyboardInterrupt):
        learnt(vq.Int4(group=PER_OUTPUT), model=model, checkpoint_steps=2)
    unchanged(model, before)
    assert torch.equal(part.step, torch.full((2,), 0.5)) and part.gain is None


def raise_stop(*_):
    raise KeyboardInterrupt


def test_training_that_diverges_goes_back_to_steps_of_its_last_good_state(monkeypatch):
    model, part = with_part()
    with pytest.raises(TrainingError, match="the model is back at step 0"):
        learnt(vq.Int4(group=PER_OUTPUT), model=model, clip_norm=1e30, rules=(Steps(1e30),))
    assert torch.equal(part.step, torch.full((2,), 0.5))


def test_layers_that_do_not_learn_keep_their_steps():
    model, part = with_part()
    scale = model[0].parametrizations.weight[0].scale.clone()
    model[0].parametrizations.weight.original.requires_grad_(False)
    learnt(vq.Int4(group=PER_OUTPUT), model=model)
    assert torch.equal(model[0].parametrizations.weight[0].scale, scale)
    assert not torch.equal(part.step, torch.full((2,), 0.5))
    other, own = with_part()
    _, result, _ = learnt(
        vq.Int4(group=PER_OUTPUT), model=other, rules=(Steps(1e-2, activations=False),)
    )
    assert torch.equal(own.step, torch.full((2,), 0.5))
    assert result.rules["steps"][-1].keys() == {"weights_moved"}


def test_a_rate_must_be_positive():
    with pytest.raises(ConfigError, match=r"rate of steps must be positive, not 0"):
        Steps(0)
