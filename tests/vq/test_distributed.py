"""Several processes train one model, and it is the model that one process would train."""

import copy
import functools
import os
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard

import vq
from tests.processes import Group, free_port, run_group, two_processes
from tests.vq.learning.rules.own import Gaining, Shrinking
from tests.vq.models import Net, batches
from vq import SSVQ, VQ, Recipe
from vq.errors import ConfigError, OutputError, SignbookError, TrainingError
from vq.formats.model import compressed_layers
from vq.formats.weights import FROZEN
from vq.learning.finetune import Rates
from vq.learning.rules.candidates import Candidates
from vq.learning.rules.clamping import Clamping
from vq.learning.rules.driver import Rules
from vq.learning.rules.refinement import Refinement
from vq.learning.rules.signs import Freezing

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "train_distributed.py"


SETTINGS = {
    "one": {},
    "two": {"accumulate": 2, "clip_norm": 1.0},
    "rules": {"rules": [Shrinking(1e-3), Gaining(1e-2)]},
    "candidates": {
        "candidates": {"replace_steps": 3, "towards": "descent"},
        "refinement": None,
        "accumulate": 2,
    },
}


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
    original = copy.deepcopy(model)
    vq.compress_(model, Recipe({"fc1": SSVQ(d=8, k=16), "fc2": VQ(d=4, k=32)}))
    if candidates := settings.pop("candidates", None):
        settings["rules"] = [Candidates(3, original, **candidates)]
    data = [(share(x), share(y)) for x, y in batches(count=10, batch=64)]
    settings = {"freezing": Freezing(interval_steps=4, threshold_end=0.005), **settings}
    settings = {"rates": Rates(signs=0.1), **settings}
    settings = {"refinement": Refinement(interval_steps=5, margin=0), **settings}
    before = [layer.weight.indices.clone() for layer in compressed_layers(model)]
    result = vq.finetune_(model, data, epochs=2, **settings)
    for layer, old in zip(compressed_layers(model), before, strict=True):
        assert not torch.equal(layer.weight.indices, old), layer.name
    return model, result


def own_loop(share, wrap=None):
    """20 steps without finetune_; ``wrap`` shards the model."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 64), nn.LayerNorm(64), nn.ReLU(), nn.Linear(64, 5))
    vq.compress_(model, Recipe({"0": SSVQ(d=8, k=16)}))
    if wrap is not None:
        wrap(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    freezing = Freezing(interval_steps=4, threshold_end=0.005)
    rules = Rules(model, [Clamping(), freezing], 20)
    for x, y in batches(count=10, batch=64) * 2:
        loss = nn.functional.cross_entropy(model(share(x)), share(y))
        optimizer.zero_grad()
        loss.backward()
        rules.before_step()
        optimizer.step()
        rules.after_step()
    return model


def fsdp(mine):
    """Weights of a sharded training, and why finetune_ does not take its model."""

    def shard(model):
        for module in (model[0], model[3], model):
            fully_shard(module)

    model = own_loop(mine, shard)
    try:
        vq.finetune_(model, batches())
    except ConfigError as error:
        whole = StateDictOptions(full_state_dict=True)
        return get_model_state_dict(model, options=whole), str(error)
    raise AssertionError("nothing was raised")


def accelerated(rank):
    """Weights of a training that accelerate distributes."""
    import accelerate

    # As torchrun sets them; the processes are connected already.
    os.environ.update({"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"})
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"})
    helper = accelerate.Accelerator(cpu=True)
    assert helper.num_processes == 2
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 5))
    vq.compress_(model, Recipe({"0": SSVQ(d=8, k=16)}))
    rules = Rules(model, [Clamping(), Freezing()], 16)
    examples = [(x[i], y[i]) for x, y in batches() for i in range(len(x))]
    loader = torch.utils.data.DataLoader(examples, batch_size=8)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    wrapped, optimizer, loader = helper.prepare(model, optimizer, loader)
    for x, y in loader:
        loss = nn.functional.cross_entropy(wrapped(x), y)
        optimizer.zero_grad()
        helper.backward(loss)
        rules.before_step()
        optimizer.step()
        rules.after_step()
    return model.state_dict() | {"changed": torch.tensor(rules.telemetry()["signs"]["changed"])}


def worker(rank, folder):
    found = {}

    def mine(tensor):
        return tensor[rank::2]

    for name, settings in SETTINGS.items():
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
    found["fsdp"], found["fsdp refused"] = fsdp(mine)
    if find_spec("accelerate") is not None:
        found["accelerate"] = accelerated(rank)
    os.fsync = full
    found["disk"] = refused(OutputError, checkpoint_dir=folder / "full")
    torch.save(found, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two gloo processes found, by rank."""
    folder = two_processes(worker, tmp_path_factory.mktemp("two"))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("name", SETTINGS)
def test_two_processes_agree_with_one_on_the_same_global_batch(two, name):
    model, result = train(lambda tensor: tensor, **SETTINGS[name])
    state, record = two[0][name]
    assert result.steps == record["steps"] == (10 if "accumulate" in SETTINGS[name] else 20)
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
    assert (result.reassigned > 0) == (name != "candidates")
    assert result.signs[-1].frozen == record["signs"][-1]["frozen"]
    assert (name in ("rules", "candidates")) == ("rules" in record)
    for rule, numbers in result.rules.items():  # Adam magnifies the rounding of small gradients
        assert record["rules"][rule] == [pytest.approx(told, rel=1e-4) for told in numbers]


def test_all_processes_end_with_the_same_model(two):
    for name in SETTINGS:
        assert two[0][name][1] == two[1][name][1]
        for key, value in two[0][name][0].items():
            assert torch.equal(value, two[1][name][0][key]), key
    # Statistics of norms come from different data; in the end they are averaged.
    for key, value in two[0]["norms"].items():
        assert torch.equal(value, two[1]["norms"][key]), key
        assert torch.equal(value, two[0]["resumed"][key]), key


def test_sharded_training_agrees_with_one_process(two):
    expected = own_loop(lambda tensor: tensor).state_dict()
    for name, value in two[0]["fsdp"].items():  # gathered on the first process
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)
    assert (expected["0.parametrizations.weight.original1"].abs() >= FROZEN).any()
    for found in two:
        assert found["fsdp refused"].startswith("model must be whole on every process, not sharded")


def test_accelerate_keeps_all_processes_equal(two):
    if "accelerate" not in two[0]:
        pytest.skip("accelerate is not installed")
    assert two[0]["accelerate"]["changed"] > 0
    for name, value in two[0]["accelerate"].items():
        assert torch.equal(value, two[1]["accelerate"][name]), name


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


def example(folder):
    """The script and its options."""
    words = [EXAMPLE, "--checkpoint-dir", folder / "run", "--out", folder / "m.vq.safetensors"]
    return [*map(str, words), "--epochs", "1", "--resume"]


def require_trained(folder, said):
    assert said.startswith("2 processes, 16 steps: loss ") and said.count("\n") == 1
    assert (folder / "m.vq.safetensors").stat().st_size > 1000
    assert list((folder / "run").glob("step-0000000016-*.pt"))


def as_rank(rank, words):
    os.environ.update({"RANK": str(rank), "LOCAL_RANK": str(rank)})
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")


def test_the_example_runs_as_torchrun_starts_it(tmp_path):
    address = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    calls = [functools.partial(as_rank, rank, example(tmp_path)) for rank in (0, 1)]
    with Group(calls, tmp_path, address, together=True) as group:
        assert group.wait() == [0, 0], group.errors(0) + group.errors(1)
    require_trained(tmp_path, group.output(0) + group.output(1))


@pytest.mark.slow
def test_the_example_runs_under_torchrun(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-port", str(free_port()), *example(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = run_group(command, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    require_trained(tmp_path, done.stdout)
