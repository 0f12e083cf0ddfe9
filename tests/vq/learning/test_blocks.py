"""The door of block-wise training: resuming, processes, and what it refuses."""

import copy

import pytest
import torch
from torch import nn

import vq
from tests.processes import two_processes
from tests.rescomp.models import Branches, chain, vectors
from vq.errors import ConfigError, ResumeError
from vq.learning.checkpoint import StageCheckpoints

RECIPE = vq.Recipe({"*": vq.SSVQ(d=4, k=4)})


def compressed(build=chain, recipe=RECIPE):
    torch.manual_seed(0)
    teacher = build()
    model = copy.deepcopy(teacher)
    vq.compress_(model, recipe)
    return model, teacher


def same(a, b):
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def test_runs_are_repeatable_and_depend_on_the_seed():
    found = []
    for seed in (0, 0, 1):
        model, teacher = compressed()
        vq.finetune_blocks_(model, vectors(), teacher, epochs=2, seed=seed)
        found.append(model)
    assert same(found[0], found[1]) and not same(found[0], found[2])


@pytest.mark.parametrize("offload", [False, True])
def test_resumed_runs_end_like_undisturbed_ones(tmp_path, monkeypatch, offload):
    want, teacher = compressed()
    settings = {"epochs": 2, "offload": offload}
    result = vq.finetune_blocks_(want, vectors(), teacher, **settings)
    save = StageCheckpoints.save

    def stop(self, stage, state):
        save(self, stage, state)
        raise KeyboardInterrupt

    model, _ = compressed()
    monkeypatch.setattr(StageCheckpoints, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        vq.finetune_blocks_(model, vectors(), teacher, **settings, checkpoint_dir=tmp_path)
    monkeypatch.undo()
    assert len(list(tmp_path.iterdir())) == 1
    for _ in range(2):  # the second time, all is there
        model, _ = compressed()
        again = vq.finetune_blocks_(
            model, vectors(), teacher, **settings, checkpoint_dir=tmp_path, resume=True
        )
        assert same(model, want) and again == result


def test_another_run_is_not_resumed(tmp_path):
    model, teacher = compressed()
    vq.finetune_blocks_(model, vectors(), teacher, epochs=1, checkpoint_dir=tmp_path)
    other = copy.deepcopy(teacher)
    other[0].weight.data.add_(1)
    for error, text, data, taught_by, settings in [
        (ConfigError, "must be free of checkpoints", vectors(), teacher, {}),
        (ResumeError, "but its data differs", vectors(3), teacher, {"resume": True}),
        (ResumeError, "but its teacher differs", vectors(), other, {"resume": True}),
        (ResumeError, "but its settings differs", vectors(), teacher, {"resume": True, "seed": 1}),
    ]:
        fresh, _ = compressed()
        with pytest.raises(error, match=text):
            vq.finetune_blocks_(
                fresh, data, taught_by, epochs=1, checkpoint_dir=tmp_path, **settings
            )
    fresh[0].bias.requires_grad_(False)
    with pytest.raises(ResumeError, match="but its requires_grad differs"):
        vq.finetune_blocks_(
            fresh, vectors(), teacher, epochs=1, checkpoint_dir=tmp_path, resume=True
        )


def test_modes_flags_and_the_teacher_stay_as_they_were():
    model, teacher = compressed()
    model[4].bias.requires_grad_(False)
    model.train(), teacher.train()
    model[3].eval()
    before = copy.deepcopy(teacher)
    result = vq.finetune_blocks_(model, vectors(), teacher, epochs=1)
    assert model.training and teacher.training and not model[3].training
    assert not model[4].bias.requires_grad and model[0].bias.requires_grad
    assert same(teacher, before)
    assert result.to_json()["settings"]["epochs"] == 1


def test_models_that_cannot_be_trained_are_refused():
    model, teacher = compressed()
    data = vectors(1)

    def refused(text, *args, **settings):
        with pytest.raises(ConfigError, match=text):
            vq.finetune_blocks_(*args, **settings)

    refused("^model must hold a compressed layer, not none", chain(), data, teacher)
    refused("^teacher must be another model, not the one that learns", model, data, model)
    refused("^checkpoint_dir must be given to resume", model, data, teacher, resume=True)
    refused("at least one batch, not none", model, [], teacher)
    longer = nn.Sequential(*copy.deepcopy(teacher), nn.Linear(4, 4))
    blocks = r"^teacher must have the model's blocks '0' to '4' \(6\), not '0' to '5' \(7\); give"
    refused(blocks, model, data, longer)
    refused("^layers must run on the calibration data", model, data, Branches())


def test_a_norm_must_undo_a_scale_within_its_block():
    recipe = vq.Recipe({"2.0": vq.SSVQ(d=4, k=4), "0": vq.SSVQ(d=4, k=4, scale="norm")})

    def build():
        return nn.Sequential(
            nn.Linear(12, 16), nn.BatchNorm1d(16), nn.Sequential(nn.Linear(16, 16), nn.ReLU())
        )

    model, teacher = compressed(build, recipe)
    with pytest.raises(ConfigError, match=r"layer '0': the norm that took over its scale must lie"):
        vq.finetune_blocks_(model, vectors(1), teacher.eval())


def test_a_norm_in_the_same_block_may_hold_the_scale():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.norm = nn.Linear(12, 12), nn.BatchNorm1d(12)

        def forward(self, x):
            return torch.relu(self.norm(self.fc(x)))

    def build():
        return nn.Sequential(Block(), Block()).eval()

    model, teacher = compressed(build, vq.Recipe({"*": vq.SSVQ(d=4, k=4, scale="norm")}))
    result = vq.finetune_blocks_(model, vectors(), teacher, epochs=3)
    assert all(one.after < one.before < 1 for one in result.blocks)


def worker(rank, folder):
    model, teacher = compressed()
    result = vq.finetune_blocks_(model, vectors(4)[rank::2], teacher, epochs=2)
    try:
        vq.finetune_blocks_(model, vectors(1 + rank), teacher)
        raise AssertionError("nothing was raised")
    except ConfigError as error:
        refusal = str(error)
    torch.save((model.state_dict(), result.to_json()["blocks"], refusal), folder / f"{rank}.pt")


def test_two_processes_train_one_model(tmp_path):
    folder = two_processes(worker, tmp_path)
    (ours, blocks, refusal), (theirs, others, _) = (
        torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)
    )
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert blocks == others and all(one["after"] < one["before"] for one in blocks)
    assert "number of batches must be the same on all ranks" in refusal
    # One step of both is a step on the mean of their gradients: the same errors, to rounding.
    model, teacher = compressed()
    joined = [torch.cat(pair) for pair in zip(vectors(4)[::2], vectors(4)[1::2], strict=True)]
    alone = vq.finetune_blocks_(model, joined, teacher, epochs=2).blocks
    for one, two in zip(alone, blocks, strict=True):
        assert two["after"] == pytest.approx(one.after, rel=1e-3)


def test_wrapped_models_are_refused():
    model, teacher = chain(), chain()
    vq.compress_(model, vq.Recipe({"*": vq.Int8()}), progress=False)
    for pair in ((nn.DataParallel(model), teacher), (model, nn.DataParallel(teacher))):
        with pytest.raises(ConfigError, match=r"^model must be bare, not in DataParallel; give"):
            vq.finetune_blocks_(pair[0], vectors(), pair[1], progress=False)
