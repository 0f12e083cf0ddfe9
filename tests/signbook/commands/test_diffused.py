"""``signbook quantize --method w4a8-diffusion``: document, file, going on after a stop, options."""

import json

import pytest
import torch

import vq
from signbook.commands import quantize
from signbook.commands.diffused import STEPS, Diffused, diffused_of
from tests.signbook.runner import refused, run
from tests.vq.diffusion import tiny
from vq.container import open_container
from vq.errors import ConfigError
from vq.learning.checkpoint import Checkpoints

MODEL = "py:tests.vq.diffusion:tiny"
GIVEN = {"method": "w4a8-diffusion", "steps": 3, "rounds": 1, "device": "cpu"}


def test_a_command_writes_file_and_document(tmp_path):
    words = ("--method", "w4a8-diffusion", "--steps", "3", "--rounds", "1", "--rows", "2")
    done = run("quantize", MODEL, "--out", tmp_path, *words, "--activation-bits", "6")
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "quantize.json").read_text())
    assert document["schema"] == "signbook.quantize/1" and document["method"] == "w4a8-diffusion"
    found = {row["name"]: (row["method"], row["activation_bits"]) for row in document["layers"]}
    assert found == {
        "stem": ("int8", 8), "blocks.0.conv": ("int4", 6), "blocks.1.conv": ("int4", 6),
        "out": ("int8", 8),
    }  # fmt: skip
    assert all(row["rows"] == 2 and row["solver"] == "w4a8-diffusion" for row in document["layers"])
    assert document["time_tables"]["modules"] == ["blocks.0.project", "blocks.1.project"]
    assert len(document["losses"]) == 1 and document["settings"]["activation_bits"] == 6
    assert "time tables" in done.stdout and "2, for" in done.stdout
    with open_container(tmp_path / "model.vq.safetensors") as file:
        assert {layer.geometry.group for layer in file.layers} == {0, 1 << 16}
    loaded = vq.load(tmp_path / "model.vq.safetensors", into=tiny())
    with pytest.raises(ConfigError, match="calibrated, not 500; they are 1000, 667, 334"):
        loaded(torch.zeros(1, 1, 6, 6), torch.tensor([500]))
    assert not (tmp_path / "checkpoints" / "start").exists()


def test_stopped_runs_go_on_to_the_same_file(tmp_path, monkeypatch):
    quantize.run(MODEL, tmp_path / "whole", **GIVEN)
    save = Checkpoints.save

    def stop(self, step, state):
        save(self, step, state)
        if step:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", stop)
        words = [word for key, value in GIVEN.items() for word in (f"--{key}", value)]
        done = run("quantize", MODEL, "--out", tmp_path / "run", *words)
    assert done.returncode == 130
    assert "every finished checkpoint is in" in done.stderr
    quantize.run(MODEL, tmp_path / "run", resume=True, **GIVEN)
    files = [tmp_path / name / "model.vq.safetensors" for name in ("whole", "run")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_classes_and_another_group(tmp_path):
    found = quantize.run(f"{MODEL}?classes=3", tmp_path, group=8, bits=3, **GIVEN | {"rounds": 0})
    assert found["losses"] == [] and found["layers"][1]["method"] == "int3"
    with open_container(tmp_path / "model.vq.safetensors") as file:
        assert {layer.geometry.group for layer in file.layers} == {0, 8}


def test_options_are_read():
    none = dict.fromkeys(("steps", "sampler", "guidance", "rounds", "rows"))
    assert diffused_of("gptq", none, {"--tune": "blocks"}) is None
    assert diffused_of("w4a8-diffusion", none, {"--tune": None}) == Diffused(STEPS)
    found = diffused_of("w4a8-diffusion", none | {"steps": 9, "rows": 1}, {})
    assert found == Diffused(9, rows=1)
    with pytest.raises(ConfigError, match=r"^--rows must come with --method w4a8-diffusion"):
        diffused_of("sde", none | {"rows": 2}, {})
    with pytest.raises(ConfigError, match=r"^--tune must stand without --method w4a8"):
        diffused_of("w4a8-diffusion", none, {"--tune": "blocks"})


@pytest.mark.parametrize(
    ("match", "words"),
    [
        ("--data must stand without --method w4a8-diffusion", ["--data", "py:a:b"]),
        ("--width must stand without --method w4a8-diffusion", ["--width", "0"]),
        ("--offload must stand without --method w4a8-diffusion", ["--offload"]),
        ("--rotate must stand without --method w4a8-diffusion", ["--rotate"]),
        ("steps must be 1 to 1000", ["--steps", "2000"]),
        ("sampler must be one of ddim, dpm++, euler, not 'other'", ["--sampler", "other"]),
        ("rows must be 1 to 20, the time steps, not 30", ["--rows", "30"]),
        ("activation bits must be 2 to 8, not 9", ["--activation-bits", "9"]),
    ],
)
def test_bad_input_is_one_error(match, words, tmp_path):
    said = refused("quantize", MODEL, "--out", tmp_path, "--method", "w4a8-diffusion", *words)
    assert match in said
    assert not list(tmp_path.glob("*.safetensors"))


def test_other_models_are_refused(tmp_path):
    words = ("--method", "w4a8-diffusion", "--out", tmp_path)
    said = refused("quantize", "py:signbook.zoo.digits:DigitsViT?depth=1&dim=32", *words)
    assert "model must predict noise and say the shape of its images" in said
