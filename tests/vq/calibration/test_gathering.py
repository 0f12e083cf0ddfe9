"""Layers by their inputs, and statistics of both models' inputs on every batch."""

import copy
from contextlib import nullcontext

import torch
from torch import nn

import vq
from tests.rescomp.models import Sum, chain, vectors
from vq.calibration.gathering import Gatherer
from vq.calibration.stages import stages_of
from vq.calibration.streams import Runner, Stream, Streams
from vq.calibration.survey import survey
from vq.recipe.selection import select


def gathering(model, teacher, data, names="*"):
    """The last stage with both models before it, its layers, and what gathers for them."""
    layers = select(model, vq.Recipe({names: vq.Int8()})).layers
    wanted = [layer.name for layer in layers]
    seen, plain = survey(model, data, wanted), survey(teacher, data, wanted)
    streams = Streams(
        Stream(Runner(model, data, seen.chain, offload=False)),
        Stream(Runner(teacher, data, plain.chain, offload=False)),
    )
    *before, stage = stages_of(wanted, seen)
    for one in before:
        streams.advance(one)
    held = [layer for layer in layers if layer.name in stage.layers]
    return stage, held, Gatherer(streams, nullcontext, torch.float64)


def scaled(model):
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.1)
    return other


@torch.no_grad()
def test_sums_are_those_of_whole_models():
    teacher, data = chain(), vectors(3)
    model = scaled(teacher)
    stage, layers, gatherer = gathering(model, teacher, data)
    (group,) = gatherer.groups(stage, layers)
    assert [layer.name for layer in group.layers] == ["4"] and group.calls == 1
    (found,) = gatherer.gather(stage, group)
    x, y = (torch.cat([m[:4](batch) for batch in data]).double() for m in (model, teacher))
    assert found.tokens == len(x)
    torch.testing.assert_close(found.hessian, x.T @ x)
    torch.testing.assert_close(found.cross, (y - x).T @ x)


@torch.no_grad()
def test_layers_are_together_if_all_their_calls_are_with_one_tensor():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Linear(12, 12) for _ in range(3))

        def forward(self, x):
            return self.a(x) + self.b(x) + self.c(x.clone())

    for kind, want in ((Pair, [["a", "b"], ["c"]]), (Sum, [["a"], ["b"], ["head"]])):
        model = kind()
        stage, layers, gatherer = gathering(model, model, vectors(2))
        groups = gatherer.groups(stage, layers)
        assert sorted([layer.name for layer in group.layers] for group in groups) == want
    calls = {group.layers[0].name: group.calls for group in groups}
    assert calls == {"a": 1, "b": 2, "head": 1}


@torch.no_grad()
def test_a_tensor_that_was_changed_in_between_is_another():
    class Changing(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(12, 12), nn.Linear(12, 12)

        def forward(self, x):
            x = x.clone()
            y = self.a(x)
            return y + self.b(x.mul_(2))

    model = Changing()
    stage, layers, gatherer = gathering(model, model, vectors(1))
    assert len(gatherer.groups(stage, layers)) == 2


@torch.no_grad()
def test_embeddings_are_left_out():
    model = nn.Sequential(nn.Embedding(8, 12), nn.Flatten(), nn.Linear(12, 3))
    wrapped = nn.ModuleDict({"all": model})
    wrapped.forward = lambda x: torch.relu(model(x))
    stage, layers, gatherer = gathering(model, model, [torch.tensor([[1], [2]])])
    assert [x.name for g in gatherer.groups(stage, layers) for x in g.layers] == ["2"]


@torch.no_grad()
def test_a_layer_that_both_models_call_otherwise_has_sums_of_one_alone():
    class Loop(nn.Module):
        turns = 1

        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(12, 12), nn.Linear(12, 12)

        def forward(self, x):
            for _ in range(self.turns):
                x = self.a(x)
            return x + self.b(x)

    for turns in ((2, 1), (1, 2), (2, 3)):
        model, teacher = Loop(), Loop()
        model.turns, teacher.turns = turns
        stage, layers, gatherer = gathering(model, teacher, vectors(1), "a")
        (group,) = gatherer.groups(stage, layers)
        if turns == (1, 2):  # one call is all that is listened to
            assert gatherer.gather(stage, group)[0].tokens == len(vectors(1)[0])
            continue
        (found,) = gatherer.gather(stage, group)
        assert found.cross is None and found.tokens == turns[0] * len(vectors(1)[0])
