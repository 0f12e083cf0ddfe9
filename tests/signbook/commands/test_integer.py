"""``signbook integer`` and ``eval --integer``: documents, files, one-line errors."""

import json

import pytest
import torch

import vq
from signbook.data.carried import carried_by, carries, carry
from signbook.data.tokenizing import of_scores
from signbook.evaluation import load_integer
from tests.signbook.runner import refused, run
from tests.signbook.shared import shared
from tests.signbook.zoo.test_tokenizer import SMALL as MERGES
from vq.integer import add_integer

RESNET = "py:signbook.zoo.resnet:resnet20"
CIFAR = "py:signbook.data:cifar10_exact"
SMALL = "py:tests.vq.integer.models:Small"
DATA = "py:tests.signbook.commands.test_integer:small_task"


def small_task():
    """Labelled inputs of the small network: the labels are what its real model says."""
    from signbook.tasks import Classification
    from tests.vq.integer.models import Small, inputs

    return Classification([(x, torch.arange(len(x)) % 6) for x in inputs(Small)])


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    from tests.vq.integer.models import Small, stored

    return stored(Small, tmp_path_factory.mktemp("cli"))[0]


def test_a_terminal_sees_how_far_calibration_is(file, tmp_path):
    done = run(
        "integer", SMALL, "--file", file, "--data", DATA, "--out", tmp_path / "x.vq.safetensors",
        env={"TERM": "xterm"}, terminal=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert all(words in done.stderr for words in ("decoding", "measuring", "counting", "eta"))


def test_integer_then_eval(file, tmp_path):
    out, document = tmp_path / "with.vq.safetensors", tmp_path / "integer.json"
    before = file.read_bytes()
    done = run(
        "integer", SMALL, "--file", file, "--data", DATA, "--out", out, "--choice", "percentile",
        "--batches", "2", "--json", document,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert file.read_bytes() == before
    found = json.loads(document.read_text())
    assert (found["schema"], found["choice"]) == ("signbook.integer/1", "percentile")
    nodes = {node["name"]: node for node in found["nodes"]}
    assert nodes["stem"]["macs"] == 2 * 9 * 8 * 5 * 9
    assert found["macs"] == sum(node["macs"] for node in nodes.values())
    done = run("eval", SMALL, "--data", DATA, "--file", out, "--integer", "--json", document)
    assert done.returncode == 0, done.stderr
    module = load_integer(out)
    hits = [module(x).argmax(1) == y for x, y in small_task().batches]
    metrics = json.loads(document.read_text())["metrics"]
    assert metrics == {"top1": pytest.approx(torch.cat(hits).float().mean().item())}


def network():
    """The small diffusion network, for the command line."""
    from tests.vq.integer.steps.networks import made

    return made("dit")


NETWORK = "py:tests.signbook.commands.test_integer:network"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A file of the diffusion network with scales for three steps of DDIM."""
    from signbook.diffusion.sampler import DDIM
    from tests.vq.integer.steps.networks import rounded

    path = tmp_path_factory.mktemp("steps") / "dit.vq.safetensors"
    vq.save(rounded("dit", steps=DDIM(3).steps), path)
    return path


def test_a_diffusion_network_gets_its_graph_and_draws_with_it(drawn, tmp_path):
    out, document = tmp_path / "with.vq.safetensors", tmp_path / "integer.json"
    done = run(
        "integer", NETWORK, "--file", drawn, "--steps", "3", "--images", "2", "--out", out,
        "--json", document,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(document.read_text())
    assert len(found["times"]) == 3
    assert found["classes"] == 4
    for node in found["nodes"]:
        known = node["op"] in ("linear", "conv", "add")
        assert node["on"] == ("device" if known else "host")
        assert (node["steps"] is not None) == (known or node["op"] == "quantize")
    assert found["macs"] == sum(node["macs"] for node in found["nodes"]) > 0
    module, real = load_integer(out), vq.load(out, into=network()).eval()
    x, told = torch.randn(2, *module.shape), torch.tensor([0, 3])
    times = torch.tensor(found["times"][:2])
    with torch.no_grad():
        want, got = real(x, times, told), module(x, times, told)
    assert (got - want).square().sum() < 0.01 * want.square().sum()
    assert module.classes == 3


def test_mistakes_are_one_line(file, drawn):
    for arguments, message in (
        (("integer", SMALL, "--file", file), "must have either --data, or --steps"),
        (("integer", SMALL, "--file", file, "--data", DATA, "--steps", "3"), "not both"),
        (
            ("integer", SMALL, "--file", file, "--data", DATA, "--sampler", "ddim"),
            "must come with --steps",
        ),
        (("integer", NETWORK, "--file", drawn, "--steps", "4"), "must be one that was calibrated"),
    ):
        assert message in refused(*arguments)
    for arguments, message in (
        (("eval", SMALL, "--data", DATA, "--integer"), "--integer must come with --file"),
        (
            ("integer", SMALL, "--file", file, "--data", DATA, "--choice", "best"),
            "choice must be one of max, percentile, mse",
        ),
        (("integer", RESNET, "--file", file, "--data", DATA), "fit to the model"),
    ):
        assert message in refused(*arguments)


@pytest.fixture(scope="module")
def resnet():
    """ResNet-20 with its weights, and calibration data."""
    from signbook.data import cifar10_exact
    from signbook.zoo.resnet import load_resnet20

    shared("cifar10_exact/cifar10_exact.npz")
    model = load_resnet20(shared("resnet_cifar10/resnet20-12fca82f.th"))
    return model, list(cifar10_exact(split="train", limit=512).batches)


def top1(model, task):
    from signbook.evaluation import evaluate

    return evaluate(model, task, device="cpu").metrics["top1"]


@pytest.mark.parametrize("images", [128, pytest.param(761, marks=pytest.mark.slow)])
def test_resnet20_in_int8_is_within_half_a_point_of_fp32(resnet, tmp_path, images):
    from signbook.data import cifar10_exact
    from signbook.zoo.resnet import resnet20

    model, calibration = resnet
    path = tmp_path / "r20.vq.safetensors"
    small = resnet20()
    small.load_state_dict(model.state_dict())
    vq.compress_(small, vq.Recipe({"*": vq.Int8()}))
    vq.save(small, path)
    add_integer(path, resnet20(), calibration)
    task = cifar10_exact(limit=images)
    assert top1(load_integer(path), task) >= top1(model, task) - 0.005


def test_resnet20_in_ssvq_loses_little_to_integer_activations(resnet, tmp_path):
    """Clustered without training, so that the accuracy itself is low; both are judged alike."""
    from signbook.data import cifar10_exact
    from signbook.zoo.resnet import resnet20

    model, calibration = resnet
    path = tmp_path / "r20.vq.safetensors"
    small = resnet20()
    small.load_state_dict(model.state_dict())
    recipe = vq.Recipe({"conv1": vq.Int8(), "linear": vq.Int8(), "*": vq.SSVQ(d=4, k=256)})
    vq.compress_(small, recipe, calibration=calibration)
    vq.save(small, path)
    add_integer(path, resnet20(), calibration)
    some = cifar10_exact(limit=128)
    dense = top1(vq.load(path, into=resnet20()).eval(), some)
    assert dense > 0.85
    assert top1(load_integer(path), some) == pytest.approx(dense, abs=0.015)


def texts_task():
    from signbook.tasks import LanguageModelling
    from tests.vq.integer.tokens.models import texts

    tokens = texts()
    return LanguageModelling([(tokens, torch.ones_like(tokens, dtype=torch.bool))])


def vectors_task():
    from signbook.tasks import Embedding
    from tests.vq.integer.tokens.models import padded

    return Embedding([padded()])


def test_a_transformer_gets_its_graph_by_itself(tmp_path):
    from tests.vq.integer.tokens.models import stored

    stored("llama", tmp_path)
    model, task = "py:tests.vq.integer.tokens.models:llama", "texts_task"
    data = f"py:tests.signbook.commands.test_integer:{task}"
    plain, out = tmp_path / "plain.vq.safetensors", tmp_path / "out.vq.safetensors"
    carrying = tmp_path / "words.safetensors"
    carrying.write_bytes(plain.read_bytes())
    carry(carrying, of_scores(MERGES, ""))
    done = run(
        "integer", model, "--file", plain, "--data", data, "--out", out, "--operands", "rows",
        "--context", "12", "--tokenizer", carrying, "--json", tmp_path / "i.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert carried_by(out).encode("abc") == MERGES.encode("abc") and not carries(plain)
    document = json.loads((tmp_path / "i.json").read_text())
    assert (document["schema"], document["context"]) == ("signbook.integer/1", 12)
    assert document["causal"] and {node["form"] for node in document["nodes"]} == {
        "int8", "int16", "rows"
    }  # fmt: skip
    weights = sum(w.weight.size for w in load_integer(out).model.weights.values())
    assert document["macs"] == weights
    done = run(
        "eval", model, "--file", out, "--data", data, "--integer", "--reference",
        "--json", tmp_path / "e.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "e.json").read_text())
    assert found["metrics"]["logit_kl"] < 0.5 and found["metrics"]["nats_per_token"] > 0
    assert "not of a transformer" in refused("simulate", out)


def test_a_sentence_encoder_is_evaluated_with_padding(tmp_path):
    from signbook.evaluation import evaluate
    from tests.vq.integer.tokens.models import padded, stored

    path, dense, _ = stored("encoder", tmp_path, operands="rows")
    module = load_integer(path)
    found = evaluate(module, vectors_task(), reference=dense, progress=False)
    assert found.metrics["embedding_cosine"] > 0.99
    batch = padded()
    with pytest.raises(vq.errors.ConfigError, match="attention_mask must be 1 and then 0"):
        module(batch["input_ids"], batch["attention_mask"].flip(1))
    with pytest.raises(vq.errors.ConfigError, match="token_type_ids must be left out, or all 0"):
        module(**batch, token_type_ids=batch["input_ids"])


def test_options_of_transformers_belong_to_them(file):
    found = refused("integer", SMALL, "--file", file, "--data", DATA, "--operands", "rows")
    assert "--context, --operands and --tokenizer must come with a transformer" in found
