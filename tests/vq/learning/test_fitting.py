"""Every block learns by itself, as a loop written by hand would train it."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

import vq
from tests.rescomp.models import Keywords, Shared, chain, llama, tokens, vectors
from vq.calibration.stages import stages_of
from vq.calibration.streams import Runner, Stream, Streams
from vq.calibration.survey import survey
from vq.errors import ConfigError, TrainingError
from vq.formats.model import compressed_layers
from vq.learning.fitting import BlockPlan, Fitter
from vq.learning.rates import CosineAdam, Rates, parameter_groups
from vq.learning.rules.rule import Rule

RECIPE = vq.Recipe({"*": vq.SSVQ(d=4, k=4)})


def compressed(build, recipe=RECIPE):
    torch.manual_seed(0)
    teacher = build()
    model = copy.deepcopy(teacher)
    vq.compress_(model, recipe)
    return model, teacher


@pytest.mark.parametrize("inputs", ["changed", "teacher"])
def test_steps_are_those_of_a_loop_by_hand(inputs):
    model, teacher = compressed(chain)
    by_hand, (batch,) = copy.deepcopy(model), vectors(1)
    result = vq.finetune_blocks_(model, [batch], teacher, epochs=10, inputs=inputs)
    ours, theirs = batch, batch
    for name in ("0", "1", "2.0"):
        block, original = (m.get_submodule(name) for m in (by_hand, teacher))
        if inputs == "teacher":
            ours = theirs
        wanted = original(theirs).detach()
        if layers := list(compressed_layers(block)):
            optimizer = CosineAdam(parameter_groups(block, Rates()), 10)
            for step in range(10):
                optimizer.zero_grad()
                loss = nn.functional.mse_loss(block(ours), wanted) / wanted.square().mean()
                loss.backward()
                optimizer.step(step)
                for layer in layers:
                    layer.clamp_()
        ours, theirs = block(ours).detach(), wanted
    assert [one.name for one in result.blocks] == ["0", "2.0", "4"]
    for name in ("0", "2.0"):
        pair = (m.get_submodule(name).parameters() for m in (model, by_hand))
        for a, b in zip(*pair, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
            assert a.grad is None and a.requires_grad


@pytest.mark.parametrize("settings", [{}, {"look_ahead": 1}, {"inputs": "teacher"}], ids=str)
def test_errors_of_blocks_and_of_the_model_fall(settings):
    pytest.importorskip("transformers")
    model, teacher = compressed(llama, vq.Recipe({"*_proj": vq.SSVQ(d=4, k=8)}))
    data, held_out = tokens(6, seed=0), tokens(4, seed=1)

    @torch.no_grad()
    def error(which):
        return sum(float((which(x).logits - teacher(x).logits).square().mean()) for x in held_out)

    before = error(model)
    result = vq.finetune_blocks_(model, data, teacher, epochs=6, **settings)
    assert [one.name for one in result.blocks] == [f"model.layers.{i}" for i in range(3)]
    assert all(one.after < one.before for one in result.blocks)
    assert error(model) < 0.8 * before


def test_what_lies_around_the_blocks_learns_too():
    method = vq.SSVQ(d=4, k=2)
    model, teacher = compressed(Keywords, vq.Recipe({"embed": method, "head": method}))
    result = vq.finetune_blocks_(model, vectors(), teacher, epochs=4)
    assert [one.name for one in result.blocks] == ["start", "end"]
    assert all(one.after < one.before for one in result.blocks)


def test_shared_and_frozen_tensors_and_signs_stay():
    model, teacher = compressed(chain, vq.Recipe({"*": vq.SSVQ(d=4, k=4, shared="one")}))
    model[4].bias.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())

    def changed(**settings):
        vq.finetune_blocks_(model, vectors(3), teacher, epochs=2, **settings)
        return {name for name, value in model.state_dict().items() if not value.equal(before[name])}

    assert changed(fixed_signs=True) == {"0.bias", "2.0.bias"}
    latents = {f"{layer}.parametrizations.weight.original1" for layer in ("0", "2.0", "4")}
    assert changed() == {"0.bias", "2.0.bias"} | latents


def test_blocks_that_share_a_weight_learn_as_one():
    model, teacher = compressed(lambda: Shared(weight_only=True))
    result = vq.finetune_blocks_(model, vectors(3), teacher, epochs=2)
    assert [one.name for one in result.blocks] == ["model"]
    assert result.blocks[0].after < result.blocks[0].before


class Pull(Rule):
    """Pulls all codewords towards zero, and counts its steps."""

    name = "pull"

    def __init__(self):
        self.steps = []

    def start(self, run):
        self.layers, self.total = run.layers, run.total_steps
        return self

    def penalty(self, step):
        return 0.1 * sum(layer.codebook.square().sum() for layer in self.layers)

    def after_step(self, step):
        self.steps.append((step, self.total))


def test_rules_act_in_every_block():
    found = []
    for rules in ([], [pull := Pull()]):
        model, teacher = compressed(chain)
        vq.finetune_blocks_(model, vectors(2), teacher, epochs=5, rules=rules)
        books = [layer.codebook.detach() for layer in compressed_layers(model)]
        found.append(sum(float(book.square().sum()) for book in books))
    assert pull.steps == [(step, 10) for step in range(1, 11)] * 3
    assert found[1] < found[0]


def test_a_block_that_does_not_get_better_stays_as_it_was():
    model, teacher = compressed(chain)
    before = copy.deepcopy(model.state_dict())
    result = vq.finetune_blocks_(model, vectors(), teacher, epochs=1, rates=Rates(1e3, 1e3, 1e3))
    assert all(one.after == one.before for one in result.blocks)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


def test_a_loss_that_diverges_leaves_the_block_as_it_was():
    model, teacher = compressed(chain)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(TrainingError, match=r"must keep its loss finite, not .*, in '0', which is"):
        vq.finetune_blocks_(model, vectors(), teacher, rates=Rates(rest=1e25))
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_any_error_leaves_the_block_as_it_was():
    class Breaks(Pull):
        def after_step(self, step):
            if step == 2:
                raise KeyboardInterrupt

    model, teacher = compressed(chain)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(KeyboardInterrupt):
        vq.finetune_blocks_(model, vectors(), teacher, rules=[Breaks()])
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


def test_a_block_in_which_nothing_learns_stays_as_it_is(tmp_path):
    np.save(tmp_path / "book.npy", np.arange(1, 17, dtype=np.int8).reshape(4, 4))
    model = nn.Sequential(nn.Linear(12, 12, bias=False), nn.Linear(12, 12))
    teacher = copy.deepcopy(model)
    fixed = vq.SSVQ(codebook=str(tmp_path / "book.npy"))
    vq.compress_(model, vq.Recipe({"0": fixed, "1": vq.SSVQ(d=4, k=4)}))
    before = model[0].weight.detach().clone()
    found = vq.finetune_blocks_(model, vectors(), teacher, epochs=2, fixed_signs=True)
    assert torch.equal(model[0].weight, before)
    assert found.blocks[0].before == found.blocks[0].after
    assert found.blocks[1].after < found.blocks[1].before


def test_alpha_is_of_no_effect():
    found = []
    for alpha in (1.0, 8.0):
        model, teacher = compressed(chain)
        refinement = vq.Refinement(interval_steps=2, margin=0.0, until=1.0)
        vq.finetune_blocks_(
            model, vectors(), teacher, epochs=4, rates=Rates(alpha=alpha), rules=[refinement]
        )
        found.append([layer.lookup.indices for layer in compressed_layers(model)])
    assert all(map(torch.equal, *found))


def test_padding_does_not_count():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.fc = nn.Embedding(8, 8), nn.Linear(8, 8)

        def forward(self, input_ids, attention_mask):
            return self.fc(self.embed(input_ids))

    ids = torch.arange(8).reshape(2, 4)
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0]])
    other = torch.where(mask.bool(), ids, 7 - ids)
    errors = []
    for given in (ids, other):
        model, teacher = compressed(Tokens, vq.Recipe({"fc": vq.SSVQ(d=4, k=2)}))
        data = [{"input_ids": given, "attention_mask": mask}]
        errors += [vq.finetune_blocks_(model, data, teacher, epochs=3).blocks]
    assert errors[0] == errors[1]


def fitter(count=4, **settings):
    """What trains the first block of a chain, with its stage; blocks are of one model each."""
    model, teacher = compressed(chain)
    plan = BlockPlan(**{
        "epochs": 3, "rates": Rates(), "look_ahead": 0, "inputs": "changed", "fixed_signs": False,
        "rules": (), "seed": 0, **settings,
    })  # fmt: skip
    data = vectors(count)
    seen = [survey(one, data, ["0", "2.0", "4"]) for one in (model, teacher)]
    runners = [
        Runner(m, data, s.chain, offload=False) for m, s in zip((model, teacher), seen, strict=True)
    ]
    streams = Streams(*map(Stream, runners))
    start, stage, *_ = stages_of(["0", "2.0", "4"], seen[0])
    with torch.no_grad():
        streams.advance(start)
    return Fitter(streams, plan, lambda *args, **more: None), stage, model


@torch.no_grad()
def test_what_learns_can_be_given():
    one, stage, model = fitter()
    before = copy.deepcopy(model.state_dict())
    groups = [{"params": [model[0].bias], "lr": 1e-2}]
    result = one.fit(stage, one.goal(stage), groups)
    assert result.after < result.before
    assert {n for n, t in model.state_dict().items() if not t.equal(before[n])} == {"0.bias"}
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


@torch.no_grad()
@pytest.mark.parametrize(("there", "begins"), [(4.0, 1.0), (6.0, 0.0), (math.nan, 0.0)])
def test_training_begins_elsewhere_if_that_is_better(there, begins, monkeypatch):
    one, stage, model = fitter(epochs=1)
    told, start, seen = iter([5.0, there, 3.0]), model[0].bias.clone(), []

    def begin():
        model[0].bias += 1

    def train(self, *given):
        seen.append(model[0].bias - start)

    monkeypatch.setattr(Fitter, "error", lambda self, *given: next(told))
    monkeypatch.setattr(Fitter, "_train", train)
    groups = [{"params": [model[0].bias], "lr": 1e-2}]
    result = one.fit(stage, one.goal(stage), groups, begin)
    assert torch.allclose(seen[0], torch.full_like(start, begins), atol=1e-6)
    assert (result.before, result.after) == (5, 3)


@torch.no_grad()
def test_the_best_state_is_kept_and_patience_ends(monkeypatch):
    one, stage, model = fitter(epochs=9, patience=2, held_out=0.5)
    told, states = iter([5.0, 4.0, 3.0, 3.5, 3.25, 9.0]), []

    def error(self, stage, goal):
        states.append(model[0].bias.clone())
        return next(told)

    monkeypatch.setattr(Fitter, "error", error)
    one.fit(stage, one.goal(stage))
    # Before, after four epochs of which the last two are worse, and in the end.
    assert len(states) == 6 and torch.equal(states[5], states[2])
    assert not torch.equal(states[5], states[0])
    monkeypatch.undo()
    long, stage, model = fitter(epochs=3, patience=3, held_out=0.5)
    plain, _, _ = fitter(epochs=3, held_out=0.5)
    found = [x.fit(stage, x.goal(stage)) for x in (long, plain)]
    assert found[0].after <= found[1].after and found[0].before == found[1].before


@torch.no_grad()
def test_losses_at_every_depth_add_up_by_their_weights():
    def error(**settings):
        one, stage, _ = fitter(**settings)
        return one.error(stage, one.goal(stage))

    depths = [error(look_ahead=depth) for depth in range(3)]
    for weights in ((1.0, 1.0, 1.0), (0.5, 2.0, 3.0)):
        wanted = sum(w * each for w, each in zip(weights, depths, strict=True))
        assert error(look_ahead=2, depth_weights=weights) == pytest.approx(wanted, rel=1e-6)
    beyond = error(look_ahead=9, depth_weights=(1.0,) * 10)  # what exists
    assert beyond == pytest.approx(sum(error(look_ahead=depth) for depth in range(6)), rel=1e-6)


def test_impossible_settings_are_all_named():
    with pytest.raises(ConfigError) as caught:
        BlockPlan(0, Rates(), -1, "all", False, (), -2, 1.0)
    assert str(caught.value) == (
        "block-wise training has 5 problems:\n- epochs must be positive, not 0\n"
        "- look_ahead must not be negative, not -1\n"
        "- inputs must be 'changed' or 'teacher', not 'all'\n- seed must not be negative, not -2"
        "\n- held_out must be at least 0 and below 1, not 1.0"
    )
    with pytest.raises(ConfigError) as caught:
        BlockPlan(1, Rates(), 1, "changed", False, (), 0, 0.0, 0, (1.0, -1.0, 1.0))
    assert str(caught.value).splitlines()[1:] == [
        "- patience must be positive, not 0",
        "- depth_weights must be 2, one for the block and each behind it, not 3",
        "- depth_weights must be positive, not (1.0, -1.0, 1.0)",
    ]


def test_a_model_must_give_tensors():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(12, 12), nn.Linear(12, 12)

        def forward(self, x):
            return str(self.a(x) + self.b(x))

    model, teacher = compressed(Words)
    with pytest.raises(ConfigError, match=r"^model must give tensors, not str$"):
        vq.finetune_blocks_(model, vectors(1), teacher)
