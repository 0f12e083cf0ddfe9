"""A model's own sampling by name: for the command that distils on it."""

import json

import torch

from signbook.diffusion import trajectories
from signbook.naming import resolve_data
from signbook.tasks import Denoising
from tests.signbook.runner import run

MODEL = "py:signbook.zoo.dit:digits?depth=1&width=16"
DATA = f"py:signbook.diffusion:trajectories?model={MODEL.partition('?')[0]}&steps=4&batch=6"


def test_targets_are_what_the_model_answers():
    torch.manual_seed(0)
    task = resolve_data(DATA)
    assert isinstance(task, Denoising) and len(task.batches) == 4
    torch.manual_seed(0)
    again = trajectories(model="py:signbook.zoo.dit:digits", steps=4, batch=6)
    (noisy, step, label), noise = next(iter(again.batches))
    assert noisy.shape == noise.shape == (6, 1, 8, 8)
    assert len(step) == len(label) == 6
    first, second = (next(iter(again.batches))[0][0] for _ in range(2))
    assert not torch.equal(first, second)


def test_a_transformer_is_distilled_on_its_own_sampling(tmp_path):
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out"
    recipe.write_text("blocks.*: {method: vq, d: 2, k: 16}\n")
    model = MODEL.partition("?")[0]
    options = ("--recipe", recipe, "--data", DATA, "--out", out, "--epochs", 2, "--device", "cpu")
    done = run("finetune", model, *options, "--method", "vq4dit")
    assert done.returncode == 0, done.stderr
    document = json.loads((out / "run.json").read_text())
    assert document["run"]["rules"]["candidates"][-1]["decided"] == 1
