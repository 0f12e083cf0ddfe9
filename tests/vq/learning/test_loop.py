"""The loop: steps of several batches, precision, and what happens when a loss is not finite."""

import copy
import sys

import pytest
import torch
from torch import nn

import vq
from tests.vq.learning.models import RECIPE, plain
from tests.vq.models import Net, batches, unchanged
from vq.errors import ConfigError, TrainingError


def assert_close(a, b, **tolerance):
    for name, value in a.state_dict().items():
        torch.testing.assert_close(value, b.state_dict()[name], **tolerance)


def test_accumulated_batches_equal_one_large_batch():
    model, teacher = plain()
    other, _ = plain()
    small = batches(8, batch=16)
    large = [
        tuple(torch.cat(parts) for parts in zip(*small[i : i + 4], strict=True)) for i in (0, 4)
    ]
    settings = {"epochs": 5, "teacher": teacher, "clip_norm": 0.5, "freezing": None}
    a = vq.finetune_(model, small, accumulate=4, **settings)
    b = vq.finetune_(other, large, **settings)
    assert a.steps == b.steps == 10
    assert a.losses == pytest.approx(b.losses, rel=1e-5)
    assert_close(model, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("wrong", ["rules", "tensorboard"])
def test_a_run_that_cannot_start_leaves_the_model_as_it_was(wrong, monkeypatch, tmp_path):
    model, _ = plain()
    before = copy.deepcopy(model.state_dict())
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    settings = {"rules": [vq.Freezing()]} if wrong == "rules" else {"tensorboard": tmp_path}
    with pytest.raises(ConfigError, match=r"two are 'signs'|package 'tensorboard' must be"):
        vq.finetune_(model, batches(), epochs=1, rates=vq.Rates(alpha=3.0), **settings)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


def test_the_last_step_of_an_epoch_may_hold_fewer_batches():
    model, _ = plain()
    other, _ = plain()
    data = batches(5)
    assert vq.finetune_(model, data, epochs=2, accumulate=3).steps == 4
    merged = [
        tuple(torch.cat(p) for p in zip(*data[i:j], strict=True)) for i, j in ((0, 3), (3, 5))
    ]
    vq.finetune_(other, merged, epochs=2)
    assert_close(model, other, rtol=1e-4, atol=1e-5)


def test_clipping_bounds_the_gradient(monkeypatch):
    norms = []
    step = torch.optim.AdamW.step

    def spy(self, *args):
        grads = [p.grad for g in self.param_groups for p in g["params"] if p.grad is not None]
        norms.append(float(torch.stack([g.norm() for g in grads]).norm()))
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    vq.finetune_(plain()[0], batches(), epochs=1, clip_norm=0.1)
    assert max(norms) == pytest.approx(0.1, rel=1e-3)


def test_bf16_computes_coarsely_and_keeps_fine_state():
    seen = []
    model, teacher = plain()
    model[4].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    result = vq.finetune_(model, batches(), epochs=6, amp="bf16", teacher=teacher)
    assert set(seen) == {torch.bfloat16}
    assert {t.dtype for t in model.parameters()} == {torch.float32}
    reference, _ = plain()
    exact = vq.finetune_(reference, batches(), epochs=6, teacher=teacher)
    assert result.losses[-1] == pytest.approx(exact.losses[-1], rel=0.1)
    assert result.losses != exact.losses
    assert model[0].weight.dtype == torch.float32


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_divergence_restores_the_last_good_state(value, tmp_path):
    calls = []

    def loss(outputs, targets):
        calls.append(nn.functional.cross_entropy(outputs, targets))
        return calls[-1] * (value if len(calls) == 14 else 1)

    torch.manual_seed(0)
    model = Net()
    vq.compress_(model, RECIPE)
    good = copy.deepcopy(model)
    settings = {"epochs": 2, "checkpoint_steps": 4, "checkpoint_dir": tmp_path}
    with pytest.raises(TrainingError) as caught:
        vq.finetune_(model, batches(), loss=loss, **settings)
    assert str(caught.value) == (
        f"training must keep its loss finite, not {value}, after 13 steps; the model is back at "
        "step 12: lower the rates, or set clip_norm"
    )
    assert not model.training and all(p.grad is None for p in model.parameters())
    newest = torch.load(max(tmp_path.glob("step-*")), weights_only=True)
    assert newest["step"] == 12
    for name, tensor in model.named_parameters():
        assert torch.equal(tensor, newest["model"][name]), name
        assert not torch.equal(tensor, good.get_parameter(name))


def test_weights_that_stop_being_finite_are_never_kept(tmp_path):
    model, _ = plain()
    start = copy.deepcopy(model.state_dict())

    def loss(outputs, targets):
        # The value is finite, but its gradient is not.
        return nn.functional.cross_entropy(outputs, targets) + (0 * outputs).sqrt().sum()

    settings = {"epochs": 1, "loss": loss, "checkpoint_steps": 1, "checkpoint_dir": tmp_path}
    with pytest.raises(TrainingError, match="training must keep its weights finite, not NaN"):
        vq.finetune_(model, batches(1), **settings)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, start[name])
    assert not list(tmp_path.glob("step-*"))


class Once:
    """A loader that is empty after its first epoch."""

    def __init__(self):
        self.batches = iter(batches(2))

    def __len__(self):
        return 2

    def __iter__(self):
        return self.batches


def test_a_loader_that_runs_dry_is_named():
    with pytest.raises(
        ConfigError, match=r"^training data must hold at least one batch, not none$"
    ):
        vq.finetune_(plain()[0], Once(), epochs=2)


class Short(Once):
    """A loader that gives fewer batches than its length says."""

    def __len__(self):
        return 3


def test_a_loader_that_gives_less_than_its_length_is_refused():
    model = plain()[0]
    before = copy.deepcopy(model.state_dict())
    message = r"^training data must give 3 batches in every pass, as .* says, not 2 in pass 1$"
    with pytest.raises(ConfigError, match=message):
        vq.finetune_(model, Short(), epochs=2)
    unchanged(model, before)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_batch_that_is_not_finite_is_named(value):
    model = nn.Sequential(nn.Linear(4, 8))
    vq.compress_(model, vq.Recipe({"*": vq.Int8()}), progress=False)
    before = copy.deepcopy(model.state_dict())
    good = torch.ones(3, 4), torch.zeros(3).long()
    wrong = good[0].clone()
    wrong[1, 2] = value
    with pytest.raises(
        ConfigError, match=r"^training batch 2, \(float32 \[3, 4\], int64 \[3\]\), must be finite"
    ):
        vq.finetune_(model, [good, (wrong, good[1])], epochs=1, progress=False)
    assert all(torch.equal(v, before[name]) for name, v in model.state_dict().items())
    ignored = good[0], good[1] - 100
    with pytest.raises(
        TrainingError, match=r"^training must keep .* look at the targets and the l"
    ):
        vq.finetune_(model, [ignored], epochs=1, progress=False)
