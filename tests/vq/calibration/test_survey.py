"""What a run shows of models that are compressed already; tests/rescomp has all other kinds."""

import copy

import torch

import vq
from tests.rescomp.models import Shared, chain, vectors
from vq.calibration.survey import survey


@torch.no_grad()
def test_a_compressed_model_has_the_blocks_of_the_original():
    model = chain()
    before = survey(model, vectors(1), ["0", "4"])
    vq.compress_(model, vq.Recipe({"*": vq.SSVQ(d=4, k=4, shared="one")}))
    after = survey(model, vectors(1), ["0", "4"])
    assert after.chain.names == before.chain.names and after.chain.bare
    assert (after.order, after.places) == (before.order, before.places)


@torch.no_grad()
def test_a_compressed_weight_that_two_modules_hold_is_one_layer():
    model = Shared(weight_only=True)
    names = ["blocks.0.fc1", "blocks.1.fc1"]
    before = survey(model, vectors(1), names)
    compressed = copy.deepcopy(model)
    vq.compress_(compressed, vq.Recipe({"*": vq.SSVQ(d=4, k=4)}))
    after = survey(compressed, vectors(1), names)
    assert before.chain is None and after.chain is None  # it runs in two blocks
    assert after.order == before.order and "blocks.2.fc1" not in after.order
