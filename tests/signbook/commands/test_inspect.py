"""``signbook inspect``: every byte, and damage."""

import json

import pytest

from tests.signbook.runner import refused, run


def test_inspect_accounts_for_every_byte(file, tmp_path):
    out = tmp_path / "inspect.json"
    done = run("inspect", file, "--json", out)
    assert done.returncode == 0, done.stderr
    document = json.loads(out.read_text())
    assert document["schema"] == "signbook.inspect/1"
    assert [layer["name"] for layer in document["layers"]] == ["fc0", "fc1"]
    first = document["layers"][0]
    assert (first["stream_bytes"], first["codebook_bytes"]) == (64 * 8 * 12 // 8, 128)
    assert document["file_bytes"] == file.stat().st_size
    weights = 2 * 64 * 64
    total = document["bits_per_weight"] * weights / 8
    assert document["ratio_compressed_layers_fp32"] == pytest.approx(4 * weights / total)
    assert document["ratio_int8"] == pytest.approx((weights + 2 * 4 * 64) / total)


def test_kernels_are_told_where_they_are_asked_for(file, tmp_path):
    out = tmp_path / "inspect.json"
    done = run("inspect", file, "--kernels", "--json", out, env={"SIGNBOOK_ISA": "portable"})
    assert done.returncode == 0 and "kernel" in done.stdout, done.stderr
    assert [layer["kernel"] for layer in json.loads(out.read_text())["layers"]] == ["portable"] * 2
    message = "SIGNBOOK_ISA must be one of portable, avx2"
    assert message in refused("inspect", file, "--kernels", env={"SIGNBOOK_ISA": "mmx"})


def test_a_terminal_sees_how_far_the_check_is(file):
    done = run("inspect", file, env={"TERM": "xterm"}, terminal=True)
    assert "checking the file" in done.stderr and "8/8" in done.stderr
    assert run("inspect", file).stderr == ""


def test_missing_file():
    assert "absent.vq.safetensors: must be a readable file" in refused(
        "inspect", "absent.vq.safetensors"
    )


def test_damaged_file(file):
    data = bytearray(file.read_bytes())
    data[-1] ^= 4
    file.write_bytes(data)
    assert str(file) in refused("inspect", file)
