"""Scalars for TensorBoard: what a run tells, read back with TensorBoard's own reader."""

import sys

import pytest

import vq
from tests.vq.learning.models import plain
from tests.vq.learning.rules.own import Shrinking
from tests.vq.models import batches
from vq.errors import ConfigError, OutputError
from vq.learning.checkpoint import Checkpoints
from vq.learning.scalars import Scalars


def read(folder):
    """Scalars by name: steps and values."""
    events = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="extra tensorboard is not installed",
    ).EventAccumulator(str(folder))
    events.Reload()
    return {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


def run(folder, **settings):
    settings = {"epochs": 2, "rules": [Shrinking(0.01)], "tensorboard": folder, **settings}
    return vq.finetune_(plain()[0], batches(), **settings)


def test_every_step_and_all_that_the_rules_tell_is_there(tmp_path):
    pytest.importorskip("tensorboard", reason="extra tensorboard is not installed")
    result = run(tmp_path)
    found = read(tmp_path)
    assert [step for step, _ in found["loss"]] == list(range(1, 17))
    losses = [value for _, value in found["loss"]]
    assert sum(losses[8:]) / 8 == pytest.approx(result.losses[1], rel=1e-6)
    assert found["signs/changed"] == [
        (8, pytest.approx(result.signs[0].changed)),
        (16, pytest.approx(result.signs[1].changed)),
    ]
    assert found["shrinking/mean"][-1][1] == pytest.approx(result.rules["shrinking"][-1]["mean"])


def test_a_resumed_run_goes_on_where_its_checkpoint_is(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard", reason="extra tensorboard is not installed")
    settings = {"checkpoint_dir": tmp_path / "run", "checkpoint_steps": 3}
    save = Checkpoints.save

    def dying(self, at, state):
        if at == 12:
            raise KeyboardInterrupt
        save(self, at, state)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoints, "save", dying)
        run(tmp_path / "board", **settings)
    run(tmp_path / "board", resume=True, **settings)
    steps = [step for step, _ in read(tmp_path / "board")["loss"]]
    assert steps == list(range(1, 17))


def test_missing_tensorboard_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"must be installed, .* 'signbook\[tensorboard\]'"):
        run(tmp_path)


def test_a_place_that_is_no_folder_is_refused(tmp_path):
    pytest.importorskip("tensorboard", reason="extra tensorboard is not installed")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="tensorboard must be a folder that can be written"):
        Scalars(tmp_path / "file", 0)
