"""``signbook export``: dense weights, memory images, mistakes."""

import json

import pytest
import torch
from safetensors.torch import load_file

import vq
from tests.signbook.runner import refused, run


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


def test_mistakes_are_one_line(file, tmp_path):
    out = tmp_path / "x"
    for arguments, message in (
        (("--to", "gguf"), "--to must be one of dense, onnx, dram"),
        (("--to", "onnx"), "--to onnx must come with --model"),
        (("--to", "dense", "--dtype", "int8"), "dtype must be one"),
    ):
        assert message in refused("export", file, *arguments, "--out", out)
    assert not out.exists()
