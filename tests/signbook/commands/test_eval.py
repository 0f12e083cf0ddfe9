"""``signbook eval``: the document, the comparison, one-line errors."""

import json

import pytest
import torch

import vq
from signbook.data import digits
from signbook.evaluation import evaluate, evaluate_named
from signbook.zoo.digits import DigitsViT
from tests.signbook.runner import refused, run
from vq.errors import SignbookError

MODEL = "py:signbook.zoo.digits:DigitsViT"
DATA = "py:signbook.data:digits"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Uncompressed weights of the digits transformer, and a container made from them."""
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("eval")
    torch.manual_seed(0)
    model = DigitsViT().eval()
    torch.save(model.state_dict(), folder / "dense.pt")
    task = digits()
    dense = evaluate(model, task)
    reference = DigitsViT()
    reference.load_state_dict(model.state_dict())
    vq.compress_(model, vq.Recipe({"blocks.*": vq.SSVQ(d=8, k=16)}))
    vq.save(model, folder / "small.vq.safetensors")
    return folder, dense, evaluate(model, task, reference=reference)


def test_weights_alone(files, tmp_path):
    folder, dense, _ = files
    out = tmp_path / "eval.json"
    done = run("eval", MODEL, "--data", DATA, "--weights", folder / "dense.pt", "--json", out)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert json.loads(out.read_text()) == {
        "schema": "signbook.eval/1",
        "metrics": pytest.approx(dense.metrics),
    }
    assert "top1" in done.stdout


def test_file_beside_its_weights(files, tmp_path):
    folder, dense, compared = files
    out = tmp_path / "eval.json"
    arguments = ("--weights", folder / "dense.pt", "--file", folder / "small.vq.safetensors")
    done = run("eval", MODEL, "--data", DATA, *arguments, "--json", out)
    assert done.returncode == 0, done.stderr
    document = json.loads(out.read_text())
    assert set(document) == {"schema", "metrics"}
    assert document["metrics"] == pytest.approx(compared.metrics, rel=1e-4)
    metrics = document["metrics"]
    assert 0 < metrics["logit_kl_median"] <= metrics["logit_kl_p99"] <= metrics["logit_kl_max"]
    assert metrics["same_top1"] + metrics["changed_top1"] == 1
    assert all(name in done.stdout for name in metrics)
    done = run("eval", MODEL, "--data", DATA, *arguments, "--reference", "--json", out)
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text())["reference"] == pytest.approx(dense.metrics)


def test_file_alone_is_not_compared(files, tmp_path):
    """Without weights the named model would be random: nothing to compare with."""
    folder, _, compared = files
    out = tmp_path / "eval.json"
    done = run(
        "eval", MODEL, "--data", DATA, "--file", folder / "small.vq.safetensors", "--json", out
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads(out.read_text())["metrics"]
    assert metrics == {"top1": pytest.approx(compared.metrics["top1"])}


@pytest.mark.parametrize(
    ("activations", "error"), [("exact", 1e-4), ("int16", 1e-3), ("int8", 0.1)]
)
def test_packed_layers_differ_by_rounded_activations_alone(files, activations, error, tmp_path):
    """Of two models whose logits differ by e, the divergence is about e² / 2."""
    folder, _, compared = files
    out = tmp_path / "eval.json"
    done = run(
        "eval", MODEL, "--data", DATA, "--file", folder / "small.vq.safetensors", "--weights",
        folder / "dense.pt", "--packed", "--activations", activations, "--json", out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    metrics = json.loads(out.read_text())["metrics"]
    assert metrics["logit_kl"] == pytest.approx(compared.metrics["logit_kl"], rel=error)
    assert metrics["same_top1"] == pytest.approx(compared.metrics["same_top1"], abs=error)


def test_packed_layers_round_to_eight_bits_by_default(files):
    def measured(**options):
        file, weights = (files[0] / name for name in ("small.vq.safetensors", "dense.pt"))
        found = evaluate_named(MODEL, DATA, file=file, weights=weights, packed=True, **options)
        return found.metrics["logit_kl"]

    assert measured() == measured(activations="int8") != measured(activations="exact")


def test_mistakes_are_one_line(files):
    folder, _, _ = files
    assert "did you mean" in refused("eval", "resnet20", "--data", DATA)
    assert "dense.pt" in refused("eval", MODEL, "--data", DATA, "--file", folder / "dense.pt")
    assert run("eval", MODEL).returncode == 2


@pytest.mark.parametrize(
    ("model", "data", "options", "message"),
    [
        (MODEL, "digits", {}, "did you mean 'py:signbook.data:digits'"),
        (MODEL, DATA, {"reference": True}, "--reference must come with --file"),
        (MODEL, DATA, {"packed": True}, "^--packed must come with --file, the container whose"),
        (
            MODEL,
            DATA,
            {"packed": True, "integer": True, "file": "small.vq.safetensors"},
            "^--packed must come without --integer: a graph's layers are decoded",
        ),
        (
            MODEL,
            DATA,
            {"packed": True, "activation_bits": 8, "file": "small.vq.safetensors"},
            "^--activation-bits must come without --packed: what packed layers read is rounded",
        ),
        (MODEL, DATA, {"device": "gpu"}, "device must be one that this machine has"),
        (MODEL, DATA, {"weights": "small.vq.safetensors"}, "fit to DigitsViT"),
        ("py:signbook.zoo.ddpm:ddpm", DATA, {"file": "small.vq.safetensors"}, "fit to the model"),
        (
            "py:signbook.zoo.ddpm:ddpm",
            DATA,
            {},
            r"^model must accept evaluation batch 1, .*float32",
        ),
    ],
)
def test_combinations_that_cannot_work(files, monkeypatch, model, data, options, message):
    monkeypatch.chdir(files[0])
    with pytest.raises(SignbookError, match=message):
        evaluate_named(model, data, **options)
