"""Runs that die: they continue as if nothing had happened, or say why they cannot."""

import errno
import functools
import json
import os
import random
import signal
import time

import numpy as np
import pytest
import torch

import vq
from tests.processes import Group
from tests.vq import interrupted
from tests.vq.models import Net, batches
from vq import SSVQ, Recipe
from vq.errors import ConfigError, OutputError, ResumeError
from vq.learning.checkpoint import Checkpoints, StageCheckpoints
from vq.learning.finetune import Rates

KILLS = 2  # the first before there is a checkpoint


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name


def newest(folder):
    return max((p.name for p in folder.glob("step-*")), default="")


@pytest.fixture(scope="module")
def uninterrupted():
    """The run without checkpoints, which must not change it either."""
    torch.set_num_threads(1)
    return interrupted.run(None)


def test_killed_at_random_moments_it_ends_the_same_to_the_bit(
    tmp_path, tmp_path_factory, uninterrupted
):
    moment = random.Random(20)
    start, outputs = functools.partial(interrupted.main, tmp_path), tmp_path_factory.mktemp("out")
    died_at = []
    for attempt in range(KILLS + 1):
        before = newest(tmp_path)
        with Group([start], outputs) as group:
            group.wait_for("started\n")
            if attempt < KILLS:
                while attempt and newest(tmp_path) == before:
                    time.sleep(0.001)
                time.sleep(moment.uniform(0.0, 0.1) if attempt else 0)
                os.kill(group.pids[0], signal.SIGKILL)
            assert group.wait() == [-signal.SIGKILL if attempt < KILLS else 0], group.errors()
        died_at.append(newest(tmp_path))
    assert died_at == sorted(died_at) and len(set(died_at)) == KILLS + 1
    assert died_at[0] == "" and died_at[-2] < f"step-{interrupted.STEPS:010}" <= died_at[-1]
    final = torch.load(tmp_path / "final.pt", weights_only=True)
    assert_same(uninterrupted.state_dict(), final)
    log = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in log if line["event"] == "checkpoint"]
    assert steps == list(range(1, interrupted.STEPS + 1))
    losses = [line["loss"] for line in log if line["event"] == "epoch"]
    assert losses == uninterrupted.result.losses
    assert not list(tmp_path.glob(".*"))


class Stop(Exception):
    pass


def stop_after(monkeypatch, step):
    """Let the next run die right after it wrote the checkpoint of ``step``."""
    save = Checkpoints.save

    def dying(self, at, state):
        save(self, at, state)
        if at == step:
            raise Stop

    monkeypatch.setattr(Checkpoints, "save", dying)


@pytest.mark.parametrize("step", [1, 9, 10, 11, 59, 60])
def test_resumes_at_every_kind_of_position(tmp_path, monkeypatch, uninterrupted, step):
    with monkeypatch.context() as patch, pytest.raises(Stop):
        stop_after(patch, step)
        interrupted.run(tmp_path)
    torch.rand(7)  # what happens in between does not matter
    resumed = interrupted.run(tmp_path, resume=True)
    assert_same(uninterrupted.state_dict(), resumed.state_dict())
    assert resumed.result == uninterrupted.result
    assert resumed.result.reassigned > 0
    assert resumed.result.signs[-1].frozen > 0


def test_resumes_with_worker_processes(tmp_path, monkeypatch):
    whole = interrupted.run(None, workers=1)
    with monkeypatch.context() as patch, pytest.raises(Stop):
        stop_after(patch, 14)
        interrupted.run(tmp_path, workers=1)
    resumed = interrupted.run(tmp_path, workers=1, resume=True)
    assert_same(whole.state_dict(), resumed.state_dict())


def test_without_a_seed_it_continues_the_random_state_of_the_start(tmp_path, monkeypatch):
    def seed_all():
        random.seed(8)
        np.random.seed(8)  # interrupted.build seeds torch

    seed_all()
    whole = interrupted.run(None, seed=None)
    seed_all()
    with monkeypatch.context() as patch, pytest.raises(Stop):
        stop_after(patch, 25)
        interrupted.run(tmp_path, seed=None)
    resumed = interrupted.run(tmp_path, seed=None, resume=True)
    assert_same(whole.state_dict(), resumed.state_dict())


def compressed():
    torch.manual_seed(0)
    model = Net()
    vq.compress_(model, Recipe({"fc*": SSVQ(d=8, k=16)}))
    return model


def test_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path):
    settings = {"epochs": 3, "checkpoint_dir": tmp_path, "checkpoint_steps": 5}
    first = compressed()
    vq.finetune_(first, batches(), **settings)
    kept = sorted(tmp_path.glob("step-*"))
    assert [p.name[:15] for p in kept] == ["step-0000000020", "step-0000000024"]
    data = bytearray(kept[1].read_bytes())
    for damaged in (data[:-100], b"", data[:3000] + bytes([data[3000] ^ 1]) + data[3001:]):
        kept[1].write_bytes(damaged)
        model = compressed()
        result = vq.finetune_(model, batches(), resume=True, **settings)
        assert_same(first.state_dict(), model.state_dict())
        assert len(result.losses) == 3
    for path in tmp_path.glob("step-*"):
        path.write_bytes(b"?")
    with pytest.raises(ResumeError, match="checkpoint must be whole, but neither it nor any older"):
        vq.finetune_(compressed(), batches(), resume=True, **settings)


def test_a_checkpoint_that_would_run_code_is_not_read(tmp_path):
    import hashlib
    import pickle

    class Evil:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path}/owned",))

    data = pickle.dumps(Evil(), protocol=2)
    digest = hashlib.sha256(data).hexdigest()[:16]
    (tmp_path / f"step-0000000001-{digest}.pt").write_bytes(data)
    with pytest.raises(ResumeError):
        Checkpoints(tmp_path, {}).latest()
    assert not (tmp_path / "owned").exists()


def test_another_run_is_refused_and_told_apart(tmp_path):
    vq.finetune_(compressed(), batches(), epochs=1, checkpoint_dir=tmp_path)

    def resume(model, **settings):
        settings = {"epochs": 1, "checkpoint_dir": tmp_path, "resume": True, **settings}
        return vq.finetune_(model, batches(), **settings)

    with pytest.raises(ResumeError, match="checkpoint must come from this run, but its settings d"):
        resume(compressed(), rates=Rates(signs=0.1))
    with pytest.raises(ResumeError, match="its seed differs"):
        resume(compressed(), seed=4)
    with pytest.raises(ResumeError, match="its teacher differs"):
        resume(compressed(), teacher=Net())
    kept = compressed()
    kept.fc1.bias.requires_grad_(False)
    with pytest.raises(ResumeError, match="its requires_grad differs"):
        resume(kept)
    other = Net()
    vq.compress_(other, Recipe({"fc1": SSVQ(d=8, k=16)}))
    with pytest.raises(ResumeError, match="its recipe, weights differ; give what it was started"):
        resume(other)
    assert resume(compressed()).steps == 8
    with pytest.raises(ConfigError, match="checkpoint_dir must be free of checkpoints, not hold"):
        resume(compressed(), resume=False)
    with pytest.raises(ConfigError, match=r"^checkpoint_dir must be given to resume, not None"):
        resume(compressed(), checkpoint_dir=None)


def test_a_full_disk_stops_it_and_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    settings = {"epochs": 2, "checkpoint_dir": tmp_path, "checkpoint_steps": 3}
    whole = compressed()
    vq.finetune_(whole, batches(), epochs=2)
    fsync, calls = os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) > 2:  # two checkpoints
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match=r"must be writable, not refused \(No space left"):
            vq.finetune_(compressed(), batches(), **settings)
    assert [p.name[:15] for p in sorted(tmp_path.glob("step-*"))] == [
        "step-0000000003",
        "step-0000000006",
    ]
    assert not list(tmp_path.glob(".*"))
    model = compressed()
    vq.finetune_(model, batches(), resume=True, **settings)
    assert_same(whole.state_dict(), model.state_dict())


def test_a_place_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="checkpoint_dir must be a folder that can be made"):
        vq.finetune_(compressed(), batches(), checkpoint_dir=tmp_path / "file")


def test_stages_are_read_by_the_run_that_stored_them_only(tmp_path):
    mine = {"seed": "0"}
    StageCheckpoints(tmp_path, mine, resume=False).save(3, {"x": torch.ones(2)})
    again = StageCheckpoints(tmp_path, mine, resume=True)
    assert again.load(2) is None
    assert torch.equal(again.load(3)["x"], torch.ones(2))
    with pytest.raises(ConfigError, match="checkpoint_dir must be free of checkpoints, not hold"):
        StageCheckpoints(tmp_path, mine, resume=False).load(3)
    with pytest.raises(ResumeError, match="but its seed differs"):
        StageCheckpoints(tmp_path, {"seed": "1"}, resume=True).load(3)
