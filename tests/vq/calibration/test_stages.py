"""Which stage a layer belongs to, and which tensors are a stage's alone."""

import torch
from torch import nn

import vq
from tests.rescomp.models import Keywords, Shared, vectors
from vq.calibration.stages import frozen_but, own_parameters, stages_of
from vq.calibration.survey import survey


@torch.no_grad()
def test_stages_end_with_the_last_layer_and_keep_blocks_in_between():
    seen = survey(Keywords(), vectors(1), ["embed", "blocks.1.fc2", "blocks.1.fc1"])
    stages = stages_of(["blocks.1.fc2", "embed", "blocks.1.fc1"], seen)
    assert [(s.name, s.place, s.layers) for s in stages] == [
        ("start", None, ("embed",)),
        ("blocks.0", 0, ()),
        ("blocks.1", 1, ("blocks.1.fc1", "blocks.1.fc2")),
    ]


@torch.no_grad()
def owned(model, layers, data):
    seen = survey(model, data, layers)
    stages = stages_of(layers, seen)
    return {stage.name: set(own_parameters(model, seen.chain, stage)) for stage in stages}


def test_a_block_owns_all_its_parameters_and_other_stages_those_of_their_layers():
    model = Keywords()
    model.norm = nn.LayerNorm(12)  # never runs
    vq.compress_(model, vq.Recipe({"embed": vq.SSVQ(d=4, k=4), "blocks.0.*": vq.VQ(d=4, k=4)}))
    found = owned(model, ["embed", "blocks.0.fc1", "head"], vectors(1))
    weight = "embed.parametrizations.weight.original"
    assert found["start"] == {"embed.bias", weight + "0", weight + "1"}
    assert {name.split(".")[2] for name in found["blocks.0"]} == {"fc1", "fc2"}
    assert len(found["blocks.0"]) == 4 and len(found["blocks.1"]) == 4
    assert found["end"] == {"head.weight", "head.bias"}


def test_what_two_blocks_share_belongs_to_neither():
    recipe = vq.Recipe({"*": vq.SSVQ(d=4, k=4, shared="one")})
    model = Shared(weight_only=True)  # a weight and a bias of blocks 0 and 2 are one
    vq.compress_(model, recipe)
    found = owned(model, ["blocks.0.fc2", "blocks.1.fc1", "blocks.2.fc2"], vectors(1))
    latent, bias = "parametrizations.weight.original1", "bias"
    assert found["blocks.0"] == {f"blocks.0.fc2.{latent}", f"blocks.0.fc2.{bias}"}
    assert found["blocks.1"] == {
        f"blocks.1.fc{i}.{part}" for i in (1, 2) for part in (latent, bias)
    }
    assert found["blocks.2"] == {f"blocks.2.fc2.{latent}", f"blocks.2.fc2.{bias}"}


def test_all_others_are_frozen_for_a_while():
    model = Keywords()
    model.head.bias.requires_grad_(False)
    with frozen_but(model, [model.embed.weight]):
        assert [n for n, p in model.named_parameters() if p.requires_grad] == ["embed.weight"]
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["head.bias"]


def test_a_model_without_blocks_owns_everything():
    from tests.rescomp.models import Branches

    model = Branches()
    assert owned(model, ["a"], vectors(1)) == {"model": {n for n, _ in model.named_parameters()}}
