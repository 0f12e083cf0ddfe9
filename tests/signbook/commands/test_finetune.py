"""plan, compress and finetune from the command line, on data that needs no folder."""

import copy
import json
from importlib.util import find_spec

import pytest
import torch

import vq
from signbook.commands.finetune import (
    FILE_NAME,
    IGNORED,
    finetune_named,
    next_token_loss,
    objective_of,
)
from signbook.naming import resolve_model
from signbook.tasks import Classification, Denoising, Embedding, LanguageModelling
from tests.signbook.test_cli import refused, run
from vq.container import open_container
from vq.errors import ConfigError
from vq.learning.randomness import generators_of

MODEL = "py:signbook.zoo.digits:DigitsViT?depth=1&dim=32"
TRAIN = "py:signbook.data:digits?split=train"
RECIPE = "blocks.*: {method: ssvq, d: 8, k: 16}\nhead: null\n"


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def test_plan_is_what_compress_then_does(tmp_path, recipe):
    out = tmp_path / "out"
    done = run("plan", MODEL, "--recipe", recipe, "--json", tmp_path / "plan.json")
    assert done.returncode == 0, done.stderr
    done = run("compress", MODEL, "--recipe", recipe, "--out", out, "--json", tmp_path / "c.json")
    assert done.returncode == 0, done.stderr
    planned = json.loads((tmp_path / "plan.json").read_text())
    made = json.loads((tmp_path / "c.json").read_text())
    assert planned["schema"] == "signbook.plan/1" and made["schema"] == "signbook.compress/1"
    assert planned["file_bytes"] == made["file_bytes"] == (out / FILE_NAME).stat().st_size
    assert planned["bits_per_weight"] == made["bits_per_weight"]
    names = ["blocks.0.attn.qkv", "blocks.0.attn.proj", "blocks.0.fc1", "blocks.0.fc2"]
    assert [layer["name"] for layer in planned["layers"]] == names
    assert [layer["name"] for layer in made["layers"]] == names
    assert {"name": "head", "reason": "kept by the recipe"} in planned["skipped"]
    assert all(0 < layer["relative_error"] < 0.5 for layer in made["layers"])


def test_finetune_learns_and_writes_what_load_reads(tmp_path, recipe):
    out = tmp_path / "out"
    arguments = ("--data", TRAIN, "--out", out, "--epochs", 2, "--seed", 3, "--device", "cpu")
    done = run("finetune", MODEL, "--recipe", recipe, *arguments, "--json", tmp_path / "f.json")
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "f.json").read_text())
    assert document == json.loads((out / "run.json").read_text())
    assert document["schema"] == "signbook.finetune/1"
    losses = document["run"]["losses"]
    assert len(losses) == 2 and losses[-1] < losses[0]
    assert document["run"]["signs"][-1]["changed"] > 0
    with open_container(out / FILE_NAME) as container:
        container.verify()
        assert container.provenance.seed == 3
        assert container.provenance.calibration != "0" * 64
    vq.load(out / FILE_NAME, into=resolve_model(MODEL))


def test_distilling_uses_the_original_as_it_was(tmp_path, recipe):
    board = find_spec("tensorboard") is not None
    document = finetune_named(
        MODEL, recipe, TRAIN, tmp_path, epochs=1, teacher=True, tensorboard=board, device="cpu"
    )
    assert document["run"]["losses"]
    assert bool(list(tmp_path.glob("tensorboard/events.*"))) == board


def test_calibration_changes_the_codebooks(tmp_path, recipe):
    plain, weighed = tmp_path / "plain", tmp_path / "weighed"
    torch.manual_seed(0)
    assert run("compress", MODEL, "--recipe", recipe, "--out", plain).returncode == 0
    options = ("--data", TRAIN, "--importance", "gradients")
    done = run("compress", MODEL, "--recipe", recipe, "--out", weighed, *options)
    assert done.returncode == 0, done.stderr
    with open_container(weighed / FILE_NAME) as container:
        assert container.provenance.calibration != "0" * 64


def test_next_token_loss_ignores_what_is_not_scored():
    tokens = torch.tensor([[1, 2, 3, 0]])
    scored = torch.tensor([[False, True, True, False]])
    objective = objective_of(LanguageModelling([(tokens, scored)]))
    (batch,) = list(objective.batches)
    assert batch[1].tolist() == [[IGNORED, 2, 3, IGNORED]]
    logits = torch.randn(1, 4, 5)
    expected = -logits.log_softmax(-1)[0, [0, 1], [2, 3]].mean()
    torch.testing.assert_close(next_token_loss(logits, batch[1]), expected)
    assert len(objective.batches) == 1


def test_every_task_says_how_it_is_learned():
    x = torch.randn(2, 3)
    assert not objective_of(Classification([(x, torch.tensor([0, 1]))])).needs_teacher
    denoising = objective_of(Denoising([(x, x)]))
    assert denoising.loss(x, x) == 0 and denoising.distillation_loss(x, x) == 0
    embedding = objective_of(Embedding([x]))
    assert embedding.needs_teacher
    assert embedding.distillation_loss(x, 3 * x) == pytest.approx(0, abs=1e-6)


def test_data_without_targets_need_a_teacher(tmp_path, recipe, monkeypatch):
    import signbook.commands.finetune as module

    monkeypatch.setattr(module, "resolve_data", lambda name: Embedding([torch.randn(2, 3)]))
    with pytest.raises(ConfigError, match=r"^data x hold no targets, so --teacher must be given$"):
        finetune_named(MODEL, recipe, "x", tmp_path / "out")


@pytest.mark.parametrize(
    ("command", "text", "message"),
    [
        ("plan", "block.*: {method: ssvq}\n", "(did you mean 'blocks."),
        ("plan", "blocks.*: {method: ssvq, d: 0}\n", "d must be 1 to 64, not 0"),
        ("compress", "- 1\n- 2\n", "recipe must map patterns to methods"),
    ],
)
def test_bad_recipes_are_one_clear_error(tmp_path, command, text, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    options = ("--out", tmp_path / "out") if command == "compress" else ()
    assert message in refused(command, MODEL, "--recipe", path, *options)
    assert not list(tmp_path.glob("out/*"))


def test_language_data_keep_their_samplers_and_generators():
    rows = [(torch.ones(4, dtype=torch.int64), torch.ones(4, dtype=torch.bool))] * 8
    generator = torch.Generator().manual_seed(1)
    loader = torch.utils.data.DataLoader(rows, batch_size=2, shuffle=True, generator=generator)
    batches = objective_of(LanguageModelling(loader)).batches
    assert batches.sampler is loader.sampler
    assert generators_of(batches) == generators_of(loader) != []
    assert len(copy.copy(batches)) == 4
    with pytest.raises(AttributeError, match="missing"):
        _ = batches.missing
