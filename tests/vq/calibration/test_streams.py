"""Streams share what is alike, keep hidden states where they are told, and leave early."""

import pytest
import torch
from torch import nn

import vq
from rescomp import GPTQ, Settings, quantize_
from tests.rescomp.models import chain, masked, vectors
from vq import Int8, Recipe
from vq.calibration.stages import stages_of
from vq.calibration.streams import Runner, Stream, Streams, leave
from vq.calibration.survey import survey
from vq.errors import ConfigError


@torch.no_grad()
def test_two_streams_of_one_model_share_the_states_before_any_change():
    model, data = chain(), vectors(2)
    seen = survey(model, data, ["0"])
    runner = Runner(model, data, seen.chain, offload=False)
    stages = stages_of(["0"], seen)
    for alike in (True, False):
        streams = Streams(Stream(runner), Stream(runner), alike=alike)
        streams.advance(stages[0])
        ours, theirs = streams.changed.boundary, streams.reference.boundary
        assert all((a is b) == alike for a, b in zip(ours.hidden, theirs.hidden, strict=True))
        assert all(map(torch.equal, ours.hidden, theirs.hidden))
        assert ours.hidden is not theirs.hidden  # each goes on by itself
        streams.changed.advance(stages[1])
        assert torch.equal(ours.hidden[1], model[0](data[1]))
        assert torch.equal(theirs.hidden[1], data[1])


@torch.no_grad()
def test_a_run_on_another_streams_states_leaves_its_own_alone():
    model, data = chain(), vectors(1)
    seen = survey(model, data, ["0"])
    runner = Runner(model, data, seen.chain, offload=False)
    first, second = Stream(runner), Stream(runner)
    stages = stages_of(["0"], seen)
    for stream in (first, second):
        stream.advance(stages[0])
    second.boundary.hidden[0] = second.boundary.hidden[0] + 1
    found = first.run(stages[1], 0, boundary=second.boundary)
    assert torch.equal(found, model[0](data[0] + 1))
    assert torch.equal(first.run(stages[1], 0), model[0](data[0]))


@torch.no_grad()
def test_a_hook_may_leave_and_no_value_comes_back():
    model, data = chain(), vectors(1)
    seen = survey(model, data, ["0"])
    stream = Stream(Runner(model, data, seen.chain, offload=False))
    start, block = stages_of(["0"], seen)
    stream.advance(start)
    handle = model[0].register_forward_pre_hook(lambda module, args: leave())
    assert stream.run(block, 0) is None
    handle.remove()
    assert stream.run(block, 0) is not None


def test_batches_tell_which_tokens_count():
    runner = Runner(chain(), [*masked(1), *vectors(2)], None, offload=False)
    assert runner.mask(0).sum() == 10 + 7 + 4 and runner.mask(0).dtype == torch.bool
    assert runner.mask(1) is None
    assert runner.alike(1, 2) and not runner.alike(0, 1)


class Past(nn.Module):
    """Its blocks see only batches whose first value is positive."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(nn.Linear(12, 12), nn.Linear(12, 12))
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        return self.head(self.blocks(x) if x[0, 0] > 0 else x)


@torch.no_grad()
def test_batches_that_are_routed_past_the_blocks_stay_out_of_them():
    torch.manual_seed(0)
    model, data = Past(), [torch.ones(12, 12), -torch.ones(12, 12)]
    names = ["blocks.0", "blocks.1", "head"]
    seen = survey(model, data, names)
    stream = Stream(Runner(model, data, seen.chain, offload=False))
    *stages, end = stages_of(names, seen)
    for stage in stages:
        assert stage.place is None or stream.run(stage, 1) is None
        stream.advance(stage)
    assert [hidden is None for hidden in stream.boundary.hidden] == [False, True]
    assert all(torch.equal(stream.run(end, i), model(batch)) for i, batch in enumerate(data))
    found = quantize_(model, data, Recipe({"*": Int8()}), GPTQ(), settings=Settings(measure=False))
    assert [layer.report.tokens for layer in found.layers] == [12, 12, 24]
    fresh = Past()
    vq.compress_(fresh, Recipe({"*": Int8()}), progress=False)
    with pytest.raises(ConfigError, match=r"^calibration batch 2 must run the model's blocks, not"):
        vq.finetune_blocks_(fresh, data, Past(), progress=False)
