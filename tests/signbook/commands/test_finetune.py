"""``signbook finetune`` on data that need no folder."""

import json
from importlib.util import find_spec

import pytest
import torch

import vq
from signbook.commands import finetune
from signbook.files import FILE_NAME
from signbook.naming import resolve_model
from signbook.tasks import Classification, Embedding
from tests.signbook.runner import run
from vq.container import open_container
from vq.errors import ConfigError

MODEL = "py:signbook.zoo.digits:DigitsViT?depth=1&dim=32"
TRAIN = "py:signbook.data:digits?split=train"
RECIPE = "blocks.*: {method: ssvq, d: 8, k: 16}\nhead: null\n"


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


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


def test_blocks_learn_before_the_whole_or_instead(tmp_path, recipe):
    out, data = tmp_path / "out", f"{TRAIN}&batch=400"
    arguments = ("--data", data, "--out", out, "--epochs", 0, "--blockwise", "--device", "cpu")
    done = run("finetune", MODEL, "--recipe", recipe, *arguments)
    assert done.returncode == 0, done.stderr
    assert "block by block" in done.stdout and "blocks.0" in done.stdout
    document = json.loads((out / "run.json").read_text())
    (block,) = document["blockwise"]["blocks"]
    assert block["after"] < block["before"]
    assert document["run"]["losses"] == [] and (out / FILE_NAME).exists()
    settings = {"epochs": 1, "blockwise": True, "device": "cpu"}
    both = []
    for resume in (False, True):
        torch.manual_seed(0)  # of the model, which nobody has trained
        done = finetune.run(MODEL, recipe, data, tmp_path / "2", resume=resume, **settings)
        both.append(done)
    assert both[0] == both[1] and both[0]["blockwise"]["blocks"]
    assert len(both[0]["run"]["losses"]) == 1
    with pytest.raises(ConfigError, match=r"^--epochs must be positive without --blockwise, not "):
        finetune.run(MODEL, recipe, data, out, epochs=0)


def test_distilling_uses_the_original_as_it_was(tmp_path, recipe):
    board = find_spec("tensorboard") is not None
    document = finetune.run(
        MODEL, recipe, TRAIN, tmp_path, epochs=1, teacher=True, tensorboard=board, device="cpu"
    )
    assert document["run"]["losses"]
    assert bool(list(tmp_path.glob("tensorboard/events.*"))) == board


def test_data_without_targets_need_a_teacher(tmp_path, recipe, monkeypatch):
    monkeypatch.setattr("signbook.naming.resolve_data", lambda name: Embedding([torch.randn(2, 3)]))
    with pytest.raises(ConfigError, match=r"^data x hold no targets, so --teacher must be given$"):
        finetune.run(MODEL, recipe, "x", tmp_path / "out")


class Endless:
    def __iter__(self):
        yield torch.randn(2, 64), torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        (
            Endless(),
            r"^training data must have a length, not be a Endless without one; keep the ba",
        ),
        (iter([]), r"^training data must have a length, not be a list_iterator without one; keep"),
        (
            [torch.randn(2, 64)],
            r"^training batch 1, float32 \[2, 64\], must be \(inputs, targets\), ",
        ),
        (
            [(torch.randn(2, 64), torch.tensor([0]))],
            r"^model must accept training batch 1, \(float",
        ),
        ([(torch.randn(2, 64), torch.tensor([0, 4]))], r"^model must accept training batch 1, .*l"),
    ],
)
def test_data_of_a_wrong_form_are_refused_before_work(batches, message, tmp_path, monkeypatch):
    (tmp_path / "recipe.yaml").write_text("'*': {method: int8}\n")
    model = torch.nn.Linear(64, 4)
    monkeypatch.setattr("signbook.naming.resolve_model", lambda *_: model)
    monkeypatch.setattr("signbook.naming.resolve_data", lambda name: Classification(batches))
    monkeypatch.setattr("vq.compress_", lambda *_, **__: pytest.fail("it has begun"))
    with pytest.raises(ConfigError, match=message):
        finetune.run("x", tmp_path / "recipe.yaml", "x", tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()
