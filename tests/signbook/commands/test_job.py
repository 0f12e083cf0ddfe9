"""What every method is handed: rounding of inputs, and checkpoints that serve no other run."""

import pytest
import torch
from torch import nn

import vq
from signbook.commands.job import Done, Job, rows_of
from vq.container import account
from vq.errors import ConfigError
from vq.learning.fitting import BlockResult
from vq.recipe.selection import select


def job(network, bits, folder=None):
    rules = vq.Recipe({"*": vq.Int8()})
    selected = select(network, rules).layers
    return Job(network, rules, selected, None, None, 1, bits, {"checkpoint_dir": folder})


def test_inputs_of_linears_are_rounded():
    network = nn.Sequential(nn.Conv1d(2, 4, 1), nn.Flatten(), nn.Linear(12, 5))
    x = torch.randn(3, 2, 3)
    plain = network(x)
    assert job(network, None).rounded() is None and torch.equal(network(x), plain)
    assert job(network, 2).rounded().layers == ("2",)
    assert not torch.equal(network(x), plain)
    with pytest.raises(ConfigError, match=r"^--activation-bits must come with linear layers to q"):
        job(nn.Sequential(nn.Conv1d(2, 4, 1)), 4).rounded()


@pytest.mark.parametrize("old", [False, True])
def test_checkpoints_of_a_run_that_cannot_be_go_unless_they_were_there(tmp_path, old):
    place = tmp_path / "stage-0000"
    place.mkdir()
    name = place / f"step-{0:010}-{0:016x}.pt"
    if old:
        name.touch()
    with pytest.raises(ConfigError), job(nn.Sequential(nn.Linear(2, 2)), None, tmp_path).of_use():
        name.touch()
        raise ConfigError("data must be others")
    assert name.exists() == old


def test_documents_have_facts_and_layers():
    g = vq.Int4(group=4).geometry("fc", "linear", (8, 8))

    class Result:
        kept, blocks = ["head"], [BlockResult("0", 2.0, 1.0)]

    found = Done(Result(), {"a": 1}, [], {"pairs": []}).facts({"b": 2})
    assert found["settings"] == {"a": 1, "b": 2} and found["pairs"] == []
    assert found["blocks"] == [{"name": "0", "before": 2.0, "after": 1.0}]
    Result.blocks = []
    assert "blocks" not in Done(Result(), {}, []).facts({})
    (row,) = rows_of([g], [{"solver": "gptq", "error": 0.5}])
    bits = account([g])[0].bits_per_weight
    assert [*row.items()] == [
        ("name", "fc"), ("method", "int4"), ("solver", "gptq"), ("weights", 64),
        ("bits_per_weight", bits), ("error", 0.5),
    ]  # fmt: skip
