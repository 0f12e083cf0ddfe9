"""Data that no command can use: one error that names the batch and its shapes, and no output."""

import re
from itertools import product

import pytest

import vq
from signbook.naming import resolve_model
from tests.signbook.runner import refused

NET = "py:user_data:net"
DATA = """
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset
from signbook.tasks import Classification

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4)).eval()

def rows(n=6, width=16):
    return torch.randn(n, width)

def labels(n=6):
    return torch.arange(n) % 4

GOOD = rows(), labels()

class Broken(IterableDataset):
    def __len__(self):
        return 12

    def __iter__(self):
        for i in range(12):
            if i == 8:
                raise OSError("disk")
            yield rows()[i % 6], i % 4

DATA = {
    "empty": [],
    "nothing": [GOOD, ()],
    "no rows": [GOOD, (rows(0), labels(0))],
    "a width": [GOOD, (rows(width=15), labels())],
    "a dtype": [GOOD, (rows().long(), labels())],
    "text": [GOOD, "text"],
    "names": [GOOD, ({"image": rows()}, labels())],
    "lists": [GOOD, ([rows().tolist()], labels())],
    "raises": DataLoader(Broken(), batch_size=6),
    "a worker raises": DataLoader(Broken(), batch_size=6, num_workers=1),
    "no batches": 5,
    "negative": [GOOD, (rows(), labels() - 100)],
    "too high": [GOOD, (rows(), labels() + 1)],
    "real labels": [GOOD, (rows(), labels().float())],
    "a column": [GOOD, (rows(), labels()[:, None])],
    "not enough": [GOOD, (rows(), labels(5))],
    "no labels": [GOOD, rows()],
}

def data(case=""):
    return Classification(DATA[case.replace("_", " ")])
"""
LABELS = ("negative", "too high", "real labels", "a column", "not enough", "no labels")
CASES = (
    "empty", "nothing", "no rows", "a width", "a dtype", "text", "names", "lists", "raises",
    "a worker raises", "no batches", *LABELS,
)  # fmt: skip
COMMANDS = {
    "compress": (NET, "--recipe", "recipe.yaml", "--importance", "inputs", "--out", "out"),
    "finetune": (NET, "--recipe", "recipe.yaml", "--epochs", "1", "--out", "out"),
    "quantize": (NET, "--out", "out"),
    "eval": (NET,),
    "integer": (NET, "--file", "file.safetensors", "--out", "new.safetensors"),
}
#: What a command never looks at is no mistake.
UNSEEN = {
    *product(("compress", "quantize", "integer"), LABELS),
    # The same there as elsewhere, but torch waits five seconds for a worker when the model has run.
    *product(("finetune", "quantize", "eval"), ["a worker raises"]),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "user_data.py").write_text(DATA)
    (tmp_path / "recipe.yaml").write_text("'*': {method: int8}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    network = resolve_model(NET)
    vq.compress_(network, vq.Recipe({"*": vq.Int8()}), progress=False)
    vq.save(network, "file.safetensors")
    return tmp_path


@pytest.mark.filterwarnings("default:.*hold a token for each:UserWarning")
@pytest.mark.parametrize("command", COMMANDS)
def test_data_that_cannot_be_used_are_named(command, folder):
    before = {path for path in folder.rglob("*") if "__pycache__" not in str(path)}
    for case in CASES:
        if (command, case) in UNSEEN:
            continue
        words = (*COMMANDS[command], "--data", f"py:user_data:data?case={case.replace(' ', '_')}")
        text = refused(command, *words)
        assert text.startswith("error: ConfigError: ") and text.count("\n") == 1, (case, text)
        number = 1 if case in ("empty", "no batches") else 2
        named = (
            r"data must (hold at least one batch|be batches|have a length)"
            if number == 1
            else r"batch 2\b|batches must be \(in"
        )
        assert re.search(named, text), (case, text)
        now = {path for path in folder.rglob("*") if "__pycache__" not in str(path)}
        assert now == before, case
