"""``signbook quantize`` by what learns: document, file, exports, options, resuming."""

import json

import pytest
import torch
from torch import nn

import vq
from signbook.commands import quantize
from signbook.commands.learned import METHODS, Learned, learned_of
from signbook.packed.compressed_tensors import CompressedTensors
from signbook.packed.gptq import Gptq
from signbook.tasks import Classification
from tests.signbook.packed.unpack import unpack_compressed_tensors, unpack_gptq
from tests.signbook.runner import refused, run
from tests.vq.perturbation import models
from vq.container import open_container
from vq.errors import ConfigError
from vq.learning.checkpoint import StageCheckpoints
from vq.methods.sde import sde_
from vq.perturbation.composition import Perturb
from vq.perturbation.mask import Mask

HERE = "tests.signbook.commands.test_learned"
MODEL, DATA = f"py:{HERE}:network", f"py:{HERE}:rows"


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 12))


def rows():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(6, 64, 16, generator=generator)
    return Classification([(batch, batch.argmax(1)) for batch in x])


def test_a_command_writes_file_and_document(tmp_path):
    options = ("--method", "sde", "--width", "2", "--corner", "4", "--look-ahead", "1")
    bits = ("--bits", "2", "--group", "8", "--asymmetric")
    done = run(
        "quantize", MODEL, "--data", DATA, "--out", tmp_path, *options, *bits, "--epochs", "3"
    )
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "quantize.json").read_text())
    assert document["schema"] == "signbook.quantize/1" and document["method"] == "sde"
    assert [block["name"] for block in document["blocks"]] == ["0", "2"]
    assert all(block["after"] <= block["before"] for block in document["blocks"])
    first = document["layers"][0]
    assert first["solver"] == "sde" and first["method"] == "int2" and first["trained"] > 100
    assert "tuned blocks" not in done.stdout and "trained blocks" in done.stdout
    assert not (tmp_path / "checkpoints").exists()
    plain = quantize.run(MODEL, tmp_path / "r", method="rtn", bits=2, group=8, asymmetric=True)
    assert document["file_bytes"] == plain["file_bytes"]
    assert document["bits_per_weight"] == plain["bits_per_weight"]
    loaded = vq.load(tmp_path / "model.vq.safetensors", into=network())
    with open_container(tmp_path / "model.vq.safetensors") as container:
        assert torch.equal(torch.from_numpy(container.weight("0")), loaded[0].weight)


@pytest.mark.filterwarnings("ignore:equalisation left out")
@pytest.mark.filterwarnings("ignore:no tokens are put in front")
def test_recipes_may_mix_scalars(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text('"0": {method: int4, group: 8}\n"2": {method: int8}\n')
    given = {"data": DATA, "recipe": recipe, "epochs": 1}
    for method in METHODS:
        extra = {"width": 1} if method == "sde" else {}
        found = quantize.run(MODEL, tmp_path / method, method=method, **given, **extra)
        assert [layer["method"] for layer in found["layers"]] == ["int4", "int8"]


def test_stopped_runs_go_on_to_the_same_file(tmp_path, monkeypatch):
    given = {"data": DATA, "method": "sde", "width": 2, "bits": 2, "group": 8, "epochs": 2}
    quantize.run(MODEL, tmp_path / "whole", **given)
    save = StageCheckpoints.save

    def stop(self, stage, state):
        save(self, stage, state)
        raise KeyboardInterrupt

    monkeypatch.setattr(StageCheckpoints, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        quantize.run(MODEL, tmp_path / "two", **given)
    monkeypatch.undo()
    quantize.run(MODEL, tmp_path / "two", resume=True, **given)
    files = [(tmp_path / name / "model.vq.safetensors").read_bytes() for name in ("whole", "two")]
    assert files[0] == files[1]


@pytest.mark.filterwarnings("ignore:no tokens are put in front")
@pytest.mark.parametrize("options", [{"method": "duquant"}, {"method": "sde", "width": 2}])
@pytest.mark.parametrize("base", ["duquant", "prefixquant"])
def test_what_remains_is_in_the_file(tmp_path, base, options):
    if options["method"] == "sde":
        options = options | {"base": base}
    elif base == "prefixquant":
        options = {"method": base}
    given = {"data": DATA, "bits": 4, "group": 8, "activation_bits": 4, "epochs": 1}
    quantize.run(MODEL, tmp_path, **given, **options)
    with open_container(tmp_path / "model.vq.safetensors") as container:
        kinds = {part.kind for part in container.runtime}
    assert kinds == {"rounding"} | ({"transform"} if base == "duquant" else set())
    found = quantize.run(MODEL, tmp_path / "w", **(given | options | {"activation_bits": None}))
    with open_container(tmp_path / "w" / "model.vq.safetensors") as container:
        assert "rounding" not in {part.kind for part in container.runtime}
    assert found["settings"]["activation_bits"] is None


def normed():
    return models.before()


def rows_of_32():
    return Classification([(x, x[:, :, 0].argmax(1)) for x in models.rows(6)])


@pytest.mark.filterwarnings("ignore:equalisation left out")
def test_methods_that_move_weights_add_to_others(tmp_path):
    given = {"data": f"py:{HERE}:rows_of_32", "bits": 4, "group": 16, "activation_bits": 4}
    model, found = f"py:{HERE}:normed", {}
    for name, options in (
        ("lwc", {"method": "lwc"}),
        ("omniquant", {"method": "omniquant"}),
        ("both", {"method": "sde", "width": 2, "base": "omniquant", "window": 2}),
    ):
        document = quantize.run(model, tmp_path / name, epochs=2, **given, **options)
        found[name] = document
        assert document["settings"]["activation_bits"] == 4
        assert all(block["after"] < block["before"] for block in document["blocks"])
    assert "pairs" not in found["lwc"]
    pairs = found["both"]["pairs"]
    assert [pair["trained"] for pair in pairs] == 2 * [64, 64, 32, 32]
    assert all([*pair] == ["block", "name", "trained", "reason"] for pair in pairs)
    errors = {name: one["blocks"][-1]["after"] for name, one in found.items()}
    assert errors["omniquant"] < errors["lwc"]
    moved = {name: one["layers"][0]["moved"] for name, one in found.items()}
    assert moved["omniquant"] == 0 < moved["both"]
    assert {layer["solver"] for layer in found["both"]["layers"]} == {"sde"}
    file = vq.load(tmp_path / "both" / "model.vq.safetensors", into=normed())
    assert not torch.equal(file[0].norm1.weight, normed()[0].norm1.weight)


@pytest.mark.filterwarnings("ignore:equalisation left out")
def test_pairs_that_are_left_out_are_said(tmp_path):
    given = ("--data", DATA, "--out", tmp_path, "--method", "omniquant", "--epochs", "1")
    done = run("quantize", MODEL, *given)
    assert done.returncode == 0, done.stderr
    assert "0 scaled, 2 left out" in done.stdout
    document = json.loads((tmp_path / "quantize.json").read_text())
    reason = "neither a norm that linears read nor attention was found"
    assert [pair["reason"] for pair in document["pairs"]] == 2 * [reason]


def test_options_are_read():
    none = dict.fromkeys(("width", "corner", "base", "window"))
    assert learned_of("gptq", none, 4, 1, {}) is None
    assert learned_of("lwc", none, None, 0, {"--clip": False}) == Learned("lwc")
    given = {"width": 3, "corner": 2, "base": "omniquant", "window": 2}
    found = learned_of("sde", given, 4, 1, {})
    assert found == Learned("sde", {"width": 3, "corner": 2}, "omniquant", 4, 1, 2)
    assert found._perturb() == Perturb(Mask(3, 2))
    assert Learned("sde")._perturb() == Perturb(Mask(16))
    assert Learned("lsi")._perturb() == Perturb(Mask(0))
    for match, method, options, others in (
        (r"^--base must come with --method lsi or sde, not with lwc$", "lwc", {"base": "lwc"}, {}),
        (r"^--base must be one of lwc, .*, not 'gptq'$", "sde", {"base": "gptq"}, {}),
        (r"^--window must come with --method lwc or .* or sde, not with", "rtn", {"window": 2}, {}),
        (r"^--width must come with --method sde, not with lsi$", "lsi", {"width": 1}, {}),
        (
            r"^--corner must come with --method lsi or sde, not with gptq$",
            "gptq",
            {"corner": 0},
            {},
        ),
        (r"^--tune must stand without --method lwc, which", "lwc", {}, {"--tune": "blocks"}),
    ):
        with pytest.raises(ConfigError, match=match):
            learned_of(method, options, None, 0, others)


def test_bad_input_is_one_error(tmp_path):
    given = ("quantize", MODEL, "--out", tmp_path, "--method", "sde", "--bits", "2")
    assert "--data must be given for sde, not left out; only rtn" in refused(*given)
    wide = refused(*given, "--data", DATA)
    assert "layer '2': width must be below its rank, 12, not 16" in wide
    for option in (["--clip"], ["--damping", "0.1"], ["--no-activation-order"], ["--no-measure"]):
        said = refused(*given, "--data", DATA, *option)
        assert f"{option[0]} must stand without --method sde, which has no use of it" in said
    said = refused(*given, "--data", DATA, "--em", "2")
    assert "--sweeps, --restarts, --em and --again must stand without --method sde" in said
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize(
    ("kind", "unpack", "version"),
    [(CompressedTensors, unpack_compressed_tensors, ()), (Gptq, unpack_gptq, (2,))],
)
def test_exports_hold_the_weights_that_were_learnt(kind, unpack, version, tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 32, bias=False))
    data = [torch.randn(64, 32) for _ in range(2)]
    recipe = vq.Recipe({"0": vq.Int2(group=8, zeros=True)})
    sde_(model, data, recipe, width=2, epochs=1)
    vq.save(model, tmp_path / "x.vq.safetensors")
    with open_container(tmp_path / "x.vq.safetensors") as container:
        tensors = kind(container, [container.geometry("0")], []).tensors()
        found = {tensor.name.removeprefix("0."): tensor.data() for tensor in tensors}
    assert torch.equal(torch.from_numpy(unpack(found, 2, *version)), model[0].weight)
