"""What the methods share: resuming, tasks, blocks by name, and what is refused."""

import pytest
import torch
from torch import nn

import vq
from tests.vq.methods.models import inputs, pair
from tests.vq.models import batches
from vq.errors import ConfigError, ResumeError
from vq.learning.checkpoint import Checkpoints
from vq.methods.vq4all import vq4all_
from vq.methods.vq4dit import vq4dit_

KIND = vq.VQ(d=4, k=8)


def test_a_method_that_was_stopped_ends_the_same_to_the_bit(tmp_path, monkeypatch):
    def run(**settings):
        model, teacher = pair(KIND)
        result = vq4dit_(model, inputs(), teacher, epochs=4, seed=0, **settings)
        return model, result

    whole, result = run()
    save = Checkpoints.save

    class Stop(Exception):
        pass

    def dying(self, at, state):
        save(self, at, state)
        if at == 20:
            raise Stop

    where = {"checkpoint_dir": tmp_path, "checkpoint_steps": 5}
    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(Checkpoints, "save", dying)
        run(**where)
    with pytest.raises(ResumeError, match="settings"):
        run(**where, resume=True, n=3)
    resumed, again = run(**where, resume=True)
    assert again.losses == result.losses and again.rules == result.rules
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_the_task_counts_as_much_as_the_teacher():
    model, teacher = pair(KIND)
    seen = []

    def task(outputs, targets):
        seen.append(outputs.shape)
        return nn.functional.cross_entropy(outputs, targets)

    vq4all_(model, batches(), teacher, loss=task, epochs=1)
    assert len(seen) == 8 and seen[0] == (32, 5)
    with pytest.raises(ConfigError, match="training must have at least one step"):
        vq4all_(model, [], teacher, epochs=1)


def test_blocks_can_be_named():
    losses = []
    for blocks in (None, ["blocks.1"], ["head"]):
        model, teacher = pair(KIND)
        losses.append(vq4dit_(model, inputs(), teacher, epochs=1, blocks=blocks).losses)
    assert losses[0] != losses[1] != losses[2]
