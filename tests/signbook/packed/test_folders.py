"""Folders for transformers: loaded by the libraries that own the formats, and refused with a
reason."""

import contextlib
import errno
import importlib.util
import json
import os
import subprocess
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file
from typer.testing import CliRunner

import vq
from signbook.cli import app
from signbook.packed import export_packed
from tests.signbook.packed.unpack import unpack_compressed_tensors, unpack_gptq
from vq import SSVQ, Int2, Int3, Int4, Int8, Recipe
from vq.container import open_container, write_container
from vq.errors import ConfigError, OutputError

pytest.importorskip("transformers", reason="needs the extra lm")
import transformers

ROOT = Path(__file__).parents[3]
IDS = torch.arange(6)[None]
UP = "model.layers.0.mlp.up_proj"
MIXED = {
    "*.mlp.*": Int4(group=32), "*.k_proj": Int3(group=16), "*.q_proj": Int8(),
    "*.v_proj": Int2(group=32), "*.o_proj": Int4(group=16), "*": None,
}  # fmt: skip


def llama(**changes):
    torch.manual_seed(0)
    sizes = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, vocab_size=48)
    sizes |= dict(num_key_value_heads=1, intermediate_size=96, tie_word_embeddings=False)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes | changes)).eval()


def saved(folder, recipe, tokenizer=None, **changes):
    """A compressed model, and its container in a folder of ours."""
    model = llama(**changes)
    vq.compress_(model, Recipe(recipe), progress=False)
    vq.hf.save_pretrained(model, folder, tokenizer=tokenizer)
    return model, folder / vq.hf.FILE


def weights(file):
    with open_container(file) as container:
        return {e.geometry.name: container.weight(e.geometry.name).copy() for e in container.layers}


def config_of(folder, **changes):
    """A folder that says what the model is and holds no weights; its name."""
    config = llama(**changes).config
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    return f"hf:{folder}"


@contextlib.contextmanager
def theirs():
    """Their libraries warn and draw progress bars; neither is the subject here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def loaded(folder, **options):
    pytest.importorskip("compressed_tensors", reason="needs the extra compressed-tensors")
    with theirs():
        return transformers.AutoModelForCausalLM.from_pretrained(folder, **options).eval()


def require_equal(model, theirs_, file):
    """Equal logits, and every weight of the container in the other model, bit for bit."""
    with torch.no_grad(), theirs():
        assert torch.equal(theirs_(IDS).logits, model(IDS).logits)
    for name, weight in weights(file).items():
        found = theirs_.get_submodule(name).weight
        assert found.dtype == torch.float32
        assert np.array_equal(found.detach().numpy(), weight), name


@pytest.mark.parametrize("tied", [False, True])
def test_transformers_loads_compressed_tensors(tmp_path, tied):
    model, file = saved(tmp_path / "ours", MIXED, tie_word_embeddings=tied)
    result = export_packed(file, "compressed-tensors", tmp_path / "out")
    assert result["packed"] == list(weights(file))
    assert result["dense"] == []
    assert [path.name for path in result["files"]] == [
        "model.safetensors", "generation_config.json", "config.json",
    ]  # fmt: skip
    require_equal(model, loaded(tmp_path / "out"), file)


@pytest.mark.parametrize("method", [Int2, Int3, Int4])
@pytest.mark.parametrize("zeros", [False, True])
def test_transformers_loads_one_kind_of_layer_as_dense(tmp_path, method, zeros):
    recipe = {"*_proj": method(group=16, zeros=zeros), UP: None, "*": None}
    model, file = saved(tmp_path / "ours", recipe)
    export_packed(file, "compressed-tensors", tmp_path / "out")
    pytest.importorskip("compressed_tensors", reason="needs the extra compressed-tensors")
    how = transformers.CompressedTensorsConfig(dequantize=True)
    require_equal(model, loaded(tmp_path / "out", quantization_config=how), file)


def test_other_layers_are_dense_on_request(tmp_path):
    recipe = {**MIXED, UP: SSVQ(d=4, k=8), "lm_head": SSVQ(d=8, k=16)}
    model, file = saved(tmp_path / "ours", recipe)
    with pytest.raises(ConfigError) as caught:
        export_packed(file, "compressed-tensors", tmp_path / "out")
    assert str(caught.value) == (
        f"{file}: --to compressed-tensors has 2 problems:\n"
        f"- layer {UP!r}: method must be int8, int4, int3 or int2, not ssvq\n"
        "- layer 'lm_head': method must be int8, int4, int3 or int2, not ssvq\n"
        "--dense-others stores such layers as dense weights, --to dense all of them"
    )
    assert not (tmp_path / "out").exists()
    result = export_packed(file, "compressed-tensors", tmp_path / "out", dense_others=True)
    assert result["dense"] == [UP, "lm_head"]
    require_equal(model, loaded(tmp_path / "out"), file)


def test_kept_tensors_keep_their_dtype(tmp_path):
    model = llama()
    for part in (model.model.embed_tokens, model.model.norm, model.lm_head):
        part.bfloat16()
    vq.compress_(model, Recipe({"*_proj": Int4(group=32), "*": None}), progress=False)
    vq.hf.save_pretrained(model, tmp_path / "ours")
    file = tmp_path / "ours" / vq.hf.FILE
    export_packed(file, "compressed-tensors", tmp_path / "out")
    state = model.state_dict()
    with safe_open(tmp_path / "out/model.safetensors", "pt") as found:
        for name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"):
            assert found.get_tensor(name).dtype == torch.bfloat16
            assert torch.equal(found.get_tensor(name), state[name])
    wide = loaded(tmp_path / "out")
    with torch.no_grad(), theirs():
        wide(IDS)
    assert {p.dtype for p in wide.parameters() if p.is_floating_point()} == {torch.float32}
    for name, weight in weights(file).items():
        assert np.array_equal(wide.get_submodule(name).weight.detach().numpy(), weight)


@pytest.mark.parametrize("zeros", [False, True])
def test_gptq_folder_holds_every_weight(tmp_path, zeros):
    recipe = {UP: None, "*_proj": Int3(group=32, zeros=zeros), "*": None}
    _, file = saved(tmp_path / "ours", recipe)
    result = export_packed(file, "gptq", tmp_path / "out")
    config = json.loads((tmp_path / "out/config.json").read_text())
    about = config["quantization_config"]
    assert (config["dtype"], about["bits"], about["group_size"]) == ("float16", 3, 32)
    assert about["sym"] is not zeros
    assert about["modules_in_block_to_quantize"] == [result["packed"]]
    assert about["block_name_to_quantize"] == "model.layers"
    assert about["dynamic"].keys() == {r"-:^model\.layers\.0\.mlp\.up_proj$", "-:^lm_head$"}
    found = load_file(tmp_path / "out/model.safetensors")
    for name, weight in weights(file).items():
        parts = ("qweight", "qzeros", "scales", "g_idx")
        tensors = {part: found.pop(f"{name}.{part}") for part in parts}
        assert np.array_equal(unpack_gptq(tensors, 3, 2 if zeros else 1), weight), name
    with open_container(file) as container:
        assert found.keys() == set(container.kept_names)


#: Loads a folder twice, compares every layer in fp16 and in fp32, and prints how many there were.
GPTQ = """
import sys, numpy as np, torch
import vq
from gptqmodel import BACKEND, GPTQModel
from gptqmodel.nn_modules.qlinear import BaseQuantLinear
from transformers import AutoModelForCausalLM
from vq.container import open_container

file, folder = sys.argv[1:]
own = GPTQModel.load(folder, backend=BACKEND.GPTQ_TORCH, device="cpu", dtype=torch.float16).model
for model in (own, AutoModelForCausalLM.from_pretrained(folder)):
    count = sum(isinstance(module, BaseQuantLinear) for module in model.modules())
    with open_container(file) as container:
        assert count == len(container.layers), count
        for entry in container.layers:
            name = entry.geometry.name
            layer, exact = model.get_submodule(name), torch.tensor(container.weight(name))
            half = type(layer).dequantize_weight(layer).T
            assert half.dtype == torch.float16 and torch.equal(half, exact.half()), name
            layer.scales = layer.scales.float()
            assert torch.equal(type(layer).dequantize_weight(layer).T, exact), name
            layer.scales = layer.scales.half()
    with torch.no_grad():
        logits = model(torch.arange(6)[None]).logits.float()
    print("layers:", count, "off:", float((logits - torch.load(folder + ".pt")).abs().max()))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [Int4(group=32), Int4(group=32, zeros=True), Int3(group=16, zeros=True), Int2(group=16)],
    ids=str,
)
def test_gptqmodel_and_transformers_load_gptq(tmp_path, method):
    for package in ("gptqmodel", "optimum"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"the package {package} is not installed")
    from tokenizers import Tokenizer, models

    words = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="b"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, eos_token="b")
    model, file = saved(
        tmp_path / "ours", {UP: None, "*_proj": method, "*": None}, tokenizer, vocab_size=64
    )
    out = tmp_path / "out"
    export_packed(file, "gptq", out)
    with torch.no_grad():
        torch.save(model(IDS).logits, f"{out}.pt")
    done = subprocess.run(
        [sys.executable, "-c", GPTQ, str(file), str(out)],
        cwd=ROOT, env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("layers:")]
    assert [line[1] for line in lines] == ["13", "13"]
    assert all(float(line[3]) < 0.01 for line in lines), lines


def test_model_may_be_named(tmp_path):
    _, file = saved(tmp_path / "ours", MIXED)
    alone = tmp_path / "alone.vq.safetensors"
    alone.write_bytes(file.read_bytes())
    with pytest.raises(ConfigError, match=r"alone.vq.safetensors: must lie beside the config.json"):
        export_packed(alone, "compressed-tensors", tmp_path / "out")
    name = config_of(tmp_path / "config")
    export_packed(alone, "compressed-tensors", tmp_path / "out", model=name)
    found = load_file(tmp_path / "out/model.safetensors")
    layer = {n.removeprefix(f"{UP}."): t for n, t in found.items() if n.startswith(f"{UP}.")}
    assert np.array_equal(unpack_compressed_tensors(layer, 4), weights(file)[UP])
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    with pytest.raises(ConfigError, match=r"must be a new folder, not hold the model's own config"):
        export_packed(alone, "compressed-tensors", tmp_path / "config", model=name)


def test_tokenizer_and_generation_settings_go_along(tmp_path):
    def save(folder):
        (Path(folder) / "tokenizer.json").write_text("{}")
        (Path(folder) / "notes.txt").write_text("")

    _, file = saved(tmp_path / "ours", MIXED, types.SimpleNamespace(save_pretrained=save))
    export_packed(file, "compressed-tensors", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 32, "head_dim": 32}, r"model.norm.weight' must have shape \(32,\), not"),
        ({"num_hidden_layers": 1}, r"'model.layers.1.mlp.up_proj.weight' must be in the model"),
        ({"num_hidden_layers": 3}, r"'model.layers.2.mlp.up_proj.weight' must be in the file"),
    ],
)
def test_another_model_is_refused(tmp_path, changes, message):
    _, file = saved(tmp_path / "ours", MIXED)
    name = config_of(tmp_path / "other", **changes)
    with pytest.raises(ConfigError, match=rf"(?s)^{file}: fit to the model has .*{message}"):
        export_packed(file, "compressed-tensors", tmp_path / "out", model=name)


def test_models_of_other_libraries_are_refused(tmp_path):
    _, file = saved(tmp_path / "ours", MIXED)
    with pytest.raises(ConfigError, match=r"must be a model of transformers, not CifarResNet; "):
        export_packed(file, "gptq", tmp_path / "out", model="py:signbook.zoo.resnet:resnet20")


def test_layers_that_are_no_linear_of_their_own_are_refused(tmp_path):
    recipe = {"re:.*(embed_tokens|lm_head)": Int4(group=32), "*_proj": Int4(group=32), "*": None}
    model, file = saved(tmp_path / "ours", recipe, tie_word_embeddings=True)
    with pytest.raises(ConfigError, match=r"'model.embed_tokens': op must be linear, not embeddi"):
        export_packed(file, "compressed-tensors", tmp_path / "out")
    export_packed(file, "compressed-tensors", tmp_path / "out", dense_others=True)
    require_equal(model, loaded(tmp_path / "out"), file)
    _, file = saved(tmp_path / "ssvq", {"*_proj": SSVQ(d=4, k=8), "*": None})
    with pytest.raises(ConfigError, match=r"--to gptq must find a layer to pack, not none$"):
        export_packed(file, "gptq", tmp_path / "none", dense_others=True)


def test_tensors_that_are_both_kept_and_coded_are_refused(tmp_path):
    from tests.vq.container.samples import grouped
    from vq.container import ContainerError, Kept

    file = tmp_path / "twice.vq.safetensors"
    kept = Kept.from_numpy(np.zeros((8, 32), np.float32))
    write_container(file, [grouped("a", shape=(8, 32)).layer], {"a.weight": kept})
    name = config_of(tmp_path / "config")
    with pytest.raises(ContainerError, match=rf"^{file}: a tensor must be kept or coded, not both"):
        export_packed(file, "gptq", tmp_path / "out", model=name)


def test_places_that_will_not_do(tmp_path, monkeypatch):
    _, file = saved(tmp_path / "ours", MIXED)
    with pytest.raises(ConfigError, match=r"ours: must be a new folder, not hold model.vq.safet"):
        export_packed(file, "compressed-tensors", tmp_path / "ours")
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match=r"taken: must be a folder that can be written"):
        export_packed(file, "compressed-tensors", tmp_path / "taken")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"model.safetensors: .*\(No space left on device\)"):
        export_packed(file, "compressed-tensors", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_command_line(tmp_path):
    _, file = saved(tmp_path / "ours", {UP: SSVQ(d=4, k=8), "*_proj": Int4(group=32), "*": None})
    out, document = tmp_path / "out", tmp_path / "export.json"
    arguments = ["export", str(file), "--to", "gptq", "--out", str(out)]
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, ConfigError)
    done = CliRunner().invoke(app, [*arguments, "--dense-others", "--json", str(document)])
    assert done.exit_code == 0, done.output
    written = json.loads(document.read_text())
    assert (written["schema"], written["to"], written["dense"]) == (
        "signbook.export/1", "gptq", [UP],
    )  # fmt: skip
    assert len(written["packed"]) == 13
    for row in written["written"]:
        assert Path(row["file"]).stat().st_size == row["bytes"]
