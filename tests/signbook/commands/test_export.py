"""``signbook export``: dense weights, memory images, mistakes."""

import json

import pytest
import torch
from safetensors.torch import load_file

import vq
from signbook.tasks import Classification
from tests.signbook.runner import refused, run


def waves():
    """Data whose inputs are given by name, one at a time."""
    return Classification([({"x": torch.rand(1, 3, 16)}, torch.tensor([0]))])


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    from tests.vq.integer.models import Small, stored

    return stored(Small, tmp_path_factory.mktemp("cli"))[0]


def test_export_dense_and_dram(file, tmp_path):
    from tests.vq.integer.models import Small

    out, document = tmp_path / "dense.safetensors", tmp_path / "export.json"
    done = run("export", file, "--to", "dense", "--out", out, "--json", document)
    assert done.returncode == 0, done.stderr
    dense = vq.load(file, into=Small()).state_dict()
    found = load_file(out)
    assert found.keys() == dense.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in dense.items())
    assert json.loads(document.read_text()) == {
        "schema": "signbook.export/1",
        "to": "dense",
        "written": [{"file": str(out), "bytes": out.stat().st_size}],
    }
    out = tmp_path / "image.bin"
    done = run("export", file, "--to", "dram", "--out", out, "--base", 4096)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == file.read_bytes()
    assert json.loads((tmp_path / "image.bin.json").read_text())["base"] == 4096


@pytest.mark.parametrize(("to", "shown"), [("dense", "decoding"), ("dram", "checking")])
def test_a_terminal_sees_how_far_an_export_is(file, tmp_path, to, shown):
    command = ("export", file, "--to", to, "--out", tmp_path / "out")
    done = run(*command, env={"TERM": "xterm"}, terminal=True)
    assert shown in done.stderr and "eta" in done.stderr
    assert run(*command).stderr == ""


def test_an_integer_graph_as_onnx(file, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    out, document = tmp_path / "x.onnx", tmp_path / "export.json"
    done = run(
        "export", file, "--to", "onnx", "--quantized", "--opset", 21, "--out", out,
        "--json", document,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(document.read_text())
    assert found["written"] == [{"file": str(out), "bytes": out.stat().st_size}]
    assert found["opset"] == 21
    assert found["inputs"][0] == {
        "name": "input", "dtype": "float32", "shape": ["batch", 2, 9, 7],
    }  # fmt: skip
    assert found["checked"]["max_steps"] == 0
    for line in ("input, float32 [batch, 2, 9, 7]", "differs by 0 at most", "1, 2, 5"):
        assert line in done.stdout


def test_a_model_as_onnx_with_inputs_by_keyword(tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    from tests.vq.integer.models import Wave, stored

    path, _, _ = stored(Wave, tmp_path)
    out, document = tmp_path / "x.onnx", tmp_path / "export.json"
    done = run(
        "export", path, "--to", "onnx", "--model", "py:tests.vq.integer.models:Wave",
        "--data", "py:tests.signbook.commands.test_export:waves", "--out", out, "--json", document,
        terminal=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "exporting to ONNX" in done.stderr
    assert "torch" not in done.stderr  # what its exporter says about itself
    found = json.loads(document.read_text())
    assert (found["opset"], found["int8_layers"], found["notes"]) == (20, [], [])
    assert found["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["batch", 3, 16]}]
    assert found["checked"]["batches"] == [1, 2, 5]


@pytest.mark.parametrize("out", ["", ".", "/"])
def test_an_image_needs_a_name(file, out):
    assert "must be a file to write, not a folder" in refused(
        "export", file, "--to", "dram", "--out", out
    )


def test_mistakes_are_one_line(file, tmp_path):
    out = tmp_path / "x"
    for arguments, message in (
        (("--to", "gguf"), "--to must be one of dense, onnx, dram"),
        (("--to", "onnx"), "--to onnx must come with --model"),
        (("--to", "onnx", "--quantized", "--data", "py:x:y"), "--to onnx must come with --model"),
        (("--to", "dense", "--quantized"), "--quantized must come with --to onnx, not --to dense"),
        (("--to", "dense", "--dtype", "int8"), "dtype must be one"),
    ):
        assert message in refused("export", file, *arguments, "--out", out)
    assert not out.exists()
