"""Several processes train one model, and it is the model that one process would train."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing as mp
from torch import nn

import vq
from tests.vq.models import Net, batches
from vq import SSVQ, VQ, Recipe
from vq.errors import ConfigError, OutputError, SignbookError, TrainingError
from vq.freezing import Freezing
from vq.model import compressed_layers
from vq.refinement import Refinement

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "train_distributed.py"


class Plain(nn.Module):
    """No batch norm; one layer that the loss never reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(16, 64)
        self.norm = nn.LayerNorm(64)
        self.fc2 = nn.Linear(64, 32)
        self.pooler = nn.Linear(32, 32)
        self.head = nn.Linear(32, 5)

    def forward(self, x):
        return self.head(torch.relu(self.fc2(torch.relu(self.norm(self.fc1(x))))))


def train(share, kind=Plain, **settings):
    """20 steps of 64 examples; ``share`` takes this process's part of each."""
    torch.manual_seed(0)
    model = kind()
    vq.compress_(model, Recipe({"fc1": SSVQ(d=8, k=16), "fc2": VQ(d=4, k=32)}))
    data = [(share(x), share(y)) for x, y in batches(count=10, batch=64)]
    settings = {"freezing": Freezing(interval_steps=4, threshold_end=0.005), **settings}
    settings = {"refinement": Refinement(interval_steps=5), **settings}
    result = vq.finetune_(model, data, epochs=2, **settings)
    return model, result


def worker(rank, store, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    found = {}

    def mine(tensor):
        return tensor[rank::2]

    for name, settings in {"one": {}, "two": {"accumulate": 2, "clip_norm": 1.0}}.items():
        model, result = train(mine, **settings)
        found[name] = (model.state_dict(), result.to_json())
    model, _ = train(mine, Net, checkpoint_dir=folder / "norms", checkpoint_steps=7)
    found["norms"] = model.state_dict()
    if rank == 0:  # as if they had died on the way to the last checkpoint
        max((folder / "norms").glob("step-*")).unlink()
    dist.barrier()
    settings = {"checkpoint_dir": folder / "norms", "checkpoint_steps": 7, "resume": True}
    found["resumed"] = train(mine, Net, **settings)[0].state_dict()

    def refused(error_type, **settings):
        try:
            train(mine, **settings)
        except SignbookError as error:
            assert type(error) is error_type, repr(error)
            return str(error)
        raise AssertionError("nothing was raised")

    # What goes wrong on one process goes wrong on all, and none waits for the others.
    def broken(outputs, targets):
        return nn.functional.cross_entropy(outputs, targets) * (float("nan") if rank else 1)

    def full(handle):
        raise OSError(28, "No space left on device")

    found["diverged"] = refused(TrainingError, loss=broken)
    found["settings"] = refused(ConfigError, accumulate=rank + 1)
    found["weights"] = refused(ConfigError, kind=Net if rank else Plain)
    os.fsync = full
    found["disk"] = refused(OutputError, checkpoint_dir=folder / "full")
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two gloo processes found, by rank."""
    folder = tmp_path_factory.mktemp("two")
    mp.spawn(worker, (folder / "store", folder), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize(
    ("name", "settings"), [("one", {}), ("two", {"accumulate": 2, "clip_norm": 1.0})]
)
def test_two_processes_agree_with_one_on_the_same_global_batch(two, name, settings):
    model, result = train(lambda tensor: tensor, **settings)
    state, record = two[0][name]
    assert result.steps == record["steps"] == (20 if name == "one" else 10)
    torch.testing.assert_close(record["losses"], result.losses, rtol=1e-5, atol=0)
    for layer in compressed_layers(model):
        prefix = f"{layer.name}.parametrizations.weight"
        assert torch.equal(state[f"{prefix}.0.indices"], layer.weight.indices)
        book = next(
            v for n, v in state.items() if n in (f"{prefix}.original0", f"{prefix}.original")
        )
        gap = (book - layer.codebook).norm() / layer.codebook.norm()
        assert gap < 1e-5
    assert record["reassigned"] == result.reassigned
    assert result.signs[-1].frozen == record["signs"][-1]["frozen"]


def test_all_processes_end_with_the_same_model(two):
    for name in ("one", "two"):
        assert two[0][name][1] == two[1][name][1]
        for key, value in two[0][name][0].items():
            assert torch.equal(value, two[1][name][0][key]), key
    # Statistics of norms come from different data; in the end they are averaged.
    for key, value in two[0]["norms"].items():
        assert torch.equal(value, two[1]["norms"][key]), key
        assert torch.equal(value, two[0]["resumed"][key]), key


def test_an_error_of_one_process_is_an_error_of_all(two):
    for found in two:
        assert found["diverged"].startswith("training must keep its loss finite, not nan")
        assert found["settings"].startswith("settings and the number of batches must be the same")
        assert found["weights"].startswith("weights to train must be the same on all ranks, not ")
        assert "must be writable, not refused (No space left on device)" in found["disk"]


def test_wrapped_models_are_refused():
    with pytest.raises(ConfigError, match=r"^model must be bare, not wrapped in Distributed"):
        wrapped = nn.parallel.DistributedDataParallel.__new__(nn.parallel.DistributedDataParallel)
        nn.Module.__init__(wrapped)
        model = Net()
        vq.compress_(model, Recipe({"fc1": SSVQ(d=8, k=16)}))
        wrapped.module = model
        vq.finetune_(wrapped, batches())


def test_the_example_runs_under_torchrun_and_resumes(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
        "--master-port", str(port), str(EXAMPLE), "--checkpoint-dir", str(tmp_path / "run"),
        "--out", str(tmp_path / "m.vq.safetensors"), "--epochs", "1", "--resume",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    lines = []
    for _ in range(2):  # the second has nothing left to do
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
        assert done.returncode == 0, done.stderr
        lines.append(done.stdout)
    assert lines[0] == lines[1]
    assert lines[0].startswith("2 processes, 16 steps: loss ")
    assert (tmp_path / "m.vq.safetensors").stat().st_size > 1000
