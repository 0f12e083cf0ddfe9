"""``signbook plan`` and ``compress`` on data that need no folder."""

import json

import pytest
from torch import nn

import vq
from signbook.data.carried import carried_by, carry
from signbook.data.tokenizing import of_scores
from signbook.files import FILE_NAME
from tests.signbook.runner import refused, run
from tests.signbook.zoo.test_tokenizer import SMALL
from vq.container import open_container

MODEL = "py:signbook.zoo.digits:DigitsViT?depth=1&dim=32"
TRAIN = "py:signbook.data:digits?split=train"
RECIPE = "blocks.*: {method: ssvq, d: 8, k: 16}\nhead: null\n"


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def test_a_terminal_sees_that_data_are_read(tmp_path, recipe):
    command = ("compress", MODEL, "--recipe", recipe, "--data", TRAIN, "--out", tmp_path / "out")
    done = run(*command, env={"TERM": "xterm"}, terminal=True)
    assert done.returncode == 0, done.stderr
    assert all(x in done.stderr for x in ("reading calibration", "batch norms", "writing the file"))


def test_plan_is_what_compress_then_does(tmp_path, recipe):
    out, words = tmp_path / "out", tmp_path / "words.safetensors"
    tiny = nn.Sequential(nn.Linear(8, 8))
    vq.compress_(tiny, vq.Recipe({"*": vq.Int8()}), progress=False)
    vq.save(tiny, words, progress=False)
    carry(words, of_scores(SMALL, ""))
    what = (MODEL, "--recipe", recipe, "--tokenizer", words)
    done = run("plan", *what, "--json", tmp_path / "plan.json")
    assert done.returncode == 0, done.stderr
    done = run("compress", *what, "--out", out, "--json", tmp_path / "c.json")
    assert done.returncode == 0, done.stderr
    assert carried_by(out / FILE_NAME).encode("abc") == SMALL.encode("abc")
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


def test_calibration_changes_the_codebooks(tmp_path, recipe):
    plain, weighed = tmp_path / "plain", tmp_path / "weighed"
    assert run("compress", MODEL, "--recipe", recipe, "--out", plain).returncode == 0
    options = ("--data", TRAIN, "--importance", "gradients")
    done = run("compress", MODEL, "--recipe", recipe, "--out", weighed, *options)
    assert done.returncode == 0, done.stderr
    with open_container(weighed / FILE_NAME) as container:
        assert container.provenance.calibration != "0" * 64


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


def padded():
    return nn.Sequential(nn.Embedding(32, 16, padding_idx=0), nn.Linear(16, 8))


@pytest.mark.filterwarnings("always")
def test_warnings_are_a_line_each_and_in_the_document(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text('"0": {method: ssvq, d: 4, k: 4}\n')
    made = tmp_path / "made.json"
    for command, said in (("plan", "is zero and hardly"), ("compress", "was zero and is not")):
        options = () if command == "plan" else ("--out", tmp_path / "out")
        model = f"py:{__name__}:padded"
        done = run(command, model, "--recipe", recipe, "--json", made, *options)
        assert done.returncode == 0, done.stderr
        (warning,) = json.loads(made.read_text())["warnings"]
        assert warning.startswith(f"layer '0': row 0, its padding, {said} ")
        assert done.stderr.splitlines() == [f"warning: {warning}"]
