"""``signbook quantize --tune``: the document and the file, resuming, and what is refused."""

import json

import pytest
import torch
from torch import nn

import vq
from signbook.commands import quantize
from signbook.commands.tuning import tuning_of
from signbook.tasks import Classification
from tests.signbook.runner import refused, run
from vq.errors import ConfigError
from vq.learning import distil

HERE = "tests.signbook.commands.test_tuning"
MODEL, DATA = f"py:{HERE}:network", f"py:{HERE}:rows"
RECIPE = '"*": {method: ssvq, d: 4, k: 6, scale: output}\n'


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 5))


def rows():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(8, 32, 4, generator=generator) @ torch.randn(4, 16, generator=generator)
    return Classification([(batch, batch[:, :5].argmax(1)) for batch in x])


def test_blocks_and_scales_are_tuned(tmp_path):
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out"
    recipe.write_text(RECIPE)
    options = ("--method", "qep", "--recipe", recipe, "--epochs", 8)
    command = ("quantize", MODEL, "--data", DATA, "--out", out, *options)
    done = run(*command, "--tune", "blocks,scales")
    assert done.returncode == 0, done.stderr
    assert "tuned blocks" in done.stdout and "loss, distilled" in done.stdout
    document = json.loads((out / "quantize.json").read_text())
    assert [block["name"] for block in document["blocks"]] == ["0", "2"]
    assert all(block["after"] <= block["before"] for block in document["blocks"])
    assert document["distilled"]["after"] < document["distilled"]["before"]
    assert (
        document["settings"]["tuning"] == "Tune(parts=['blocks', 'scales'], epochs=8, look_ahead=0)"
    )
    assert not list(out.rglob("step-*"))
    tuned, x = vq.load(out / "model.vq.safetensors", into=network()), rows().batches[-1][0]
    logits = (model(x).detach().log_softmax(-1) for model in (tuned, network()))
    divergence = nn.functional.kl_div(*logits, log_target=True, reduction="batchmean")
    assert float(divergence) == pytest.approx(document["distilled"]["after"], rel=1e-4)


def test_what_is_tuned_learns_under_rounded_activations(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    given = {"data": DATA, "method": "qep", "recipe": recipe, "epochs": 4, "activation_bits": 3}
    found = quantize.run(MODEL, tmp_path / "out", tune="blocks,scales", **given)
    assert found["settings"]["activation_bits"] == 3
    assert all(block["after"] < block["before"] for block in found["blocks"])
    assert found["distilled"]["after"] < found["distilled"]["before"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ConfigError("data must be others")])
def test_a_run_that_stops_while_scales_learn_goes_on(tmp_path, monkeypatch, error):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    given = {"data": DATA, "method": "qep", "recipe": recipe, "tune": "blocks,scales", "epochs": 2}
    want = quantize.run(MODEL, out=tmp_path / "whole", **given)
    losses, mean_loss = [], distil._mean_loss

    def stop(*args):
        losses.append(mean_loss(*args))
        if len(losses) == 2:  # all is learnt, and not judged yet
            raise error
        return losses[-1]

    with monkeypatch.context() as patch, pytest.raises(type(error)):
        patch.setattr(distil, "_mean_loss", stop)
        quantize.run(MODEL, out=tmp_path / "out", **given)
    assert losses == list(want["distilled"].values())
    with pytest.raises(ConfigError, match="checkpoint_dir must be free of checkpoints"):
        quantize.run(MODEL, out=tmp_path / "out", **given)

    def fail(*args):
        raise AssertionError("blocks and scales are learnt already")

    monkeypatch.setattr("torch.optim.AdamW.step", fail)
    monkeypatch.setattr("torch.optim.Adam.step", fail)
    found = quantize.run(MODEL, out=tmp_path / "out", resume=True, **given)
    assert (found["blocks"], found["distilled"]) == (want["blocks"], want["distilled"])
    files = [tmp_path / one / "model.vq.safetensors" for one in ("whole", "out")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_options_that_do_not_fit_are_refused(tmp_path):
    fits = {"data": True, "compensates": True}
    for match, (given, facts) in {
        "be blocks, scales or blocks,scales, not 'all'$": (("all", None, 0), {}),
        "^--look-ahead must come with --tune blocks, not without$": (("scales", None, 1), {}),
        "^--epochs must come with --tune, not without$": ((None, 2, 0), {}),
        "^--tune must come with --data, not without$": (("blocks", None, 0), {"data": False}),
        "with a method that compensates, not with rtn$": (
            ("blocks", None, 0),
            {"compensates": False},
        ),
    }.items():
        with pytest.raises(ConfigError, match=match):
            tuning_of(*given, **(fits | facts))
    command = ("quantize", MODEL, "--data", DATA, "--out", tmp_path / "out", "--tune", "block")
    assert "error: ConfigError: --tune must be blocks, scales or" in refused(*command)
