"""From a compressed transformer to integers that are close to it."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import vq
from tests.vq.integer.tokens.models import CONTEXT, MODELS, data, llama, padded, stored, texts
from vq import Int8, Recipe
from vq.container import open_container
from vq.errors import ConfigError
from vq.integer.tokens import read_tokens
from vq.integer.tokens.build import add_tokens, integerize_tokens, is_transformer


def error_of(model, graph, name):
    """Root mean square of the difference over that of the model's output."""
    batch = data(name)
    with torch.no_grad():
        real = (model(**batch) if name == "encoder" else model(batch)).numpy()
    lengths = None
    inputs = batch
    if name == "encoder":
        inputs, lengths = batch["input_ids"], batch["attention_mask"].sum(1).numpy()
    codes = graph.quantize(inputs.numpy()) if name == "vision" else inputs.numpy()
    found = graph.dequantize(graph.run(codes, lengths=lengths))
    assert found.shape == real.shape
    return np.sqrt(np.square(found - real).mean() / np.square(real).mean())


@pytest.mark.parametrize("name,most", [("llama", 0.05), ("vision", 0.05), ("encoder", 0.04)])
def test_integers_are_close_to_the_model(tmp_path, name, most):
    errors = {}
    for operands in ("int8", "rows", "int16"):
        _, model, graph = stored(name, tmp_path, operands=operands)
        errors[operands] = error_of(model, graph, name)
    assert max(errors.values()) < most
    assert errors["int16"] < errors["int8"]


def test_massive_activations_are_held_in_int32(tmp_path, monkeypatch):
    forms = {node.form for node in stored("llama", tmp_path)[2].graph.nodes}
    assert forms == {"int8", "int16"}
    monkeypatch.setattr("vq.integer.tokens.build._MASSIVE", 1)
    _, model, graph = stored("llama", tmp_path, operands="int16")
    kinds = [node.op for node in graph.graph.nodes if node.form == "int32"]
    assert kinds == ["add"] * 4
    assert len({graph.scales[i] for i, n in enumerate(graph.graph.nodes) if n.form == "int32"}) == 1
    assert error_of(model, graph, "llama") < 0.03


def test_a_file_gets_its_graph(tmp_path):
    path, *_ = stored("llama", tmp_path)
    plain, out = tmp_path / "plain.vq.safetensors", tmp_path / "out.vq.safetensors"
    add_tokens(plain, llama(), [texts()], out=out, progress=False)
    assert out.read_bytes() == path.read_bytes()
    before = plain.read_bytes()
    add_tokens(plain, llama(), [texts()], progress=False)
    assert plain.read_bytes() == path.read_bytes() != before


def test_layers_that_are_not_compressed_are_refused(tmp_path):
    model, path = llama(), tmp_path / "kept.vq.safetensors"
    vq.compress_(model, Recipe({"*.wo": None, "blocks.*": Int8(), "*": None}), progress=False)
    vq.save(model, path, progress=False)
    with pytest.raises(ConfigError, match=r"layer 'blocks.0.attn.wo' must be compressed, not kept"):
        add_tokens(path, llama(), [texts()], progress=False)


def test_a_table_of_the_file_serves_look_up_and_output(tmp_path):
    model, path = llama(), tmp_path / "all.vq.safetensors"
    vq.compress_(model, Recipe({"*": Int8()}), progress=False)
    vq.save(model, path, progress=False)
    graph = add_tokens(path, llama(), [texts()], progress=False)
    assert {n.layer for n in graph.graph.nodes if n.op == "embedding"} == {"embed"}
    assert graph.graph.output.layer == "embed"
    with open_container(path) as file:
        assert "_integer.embed.weight" not in file.kept_names
        assert np.array_equal(read_tokens(file).run(texts().numpy()), graph.run(texts().numpy()))


def build(name, batches, tmp_path, **settings):
    model, path = MODELS[name](), tmp_path / "file.vq.safetensors"
    compressed = copy.deepcopy(model)
    vq.compress_(compressed, Recipe({"*": Int8()}), progress=False)
    vq.save(compressed, path, progress=False)
    with open_container(path) as file:
        return integerize_tokens(compressed, file, batches, progress=False, **settings)


def test_data_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="must hold at least one batch, not none"):
        build("llama", [], tmp_path)
    with pytest.raises(ConfigError, match=r"batch 1.*inputs must be tokens \[B, T\]"):
        build("llama", [torch.zeros(3)], tmp_path)
    with pytest.raises(ConfigError, match="context must be 1 to 12, which the model has, not 13"):
        build("llama", [texts()], tmp_path, context=13)
    with pytest.raises(ConfigError, match="at most 5 tokens long, the context, not 12"):
        build("llama", [texts()], tmp_path, context=5)
    with pytest.raises(ConfigError, match="choice must be one of"):
        build("llama", [texts()], tmp_path, choice="best")
    left = padded()
    left["attention_mask"] = left["attention_mask"].flip(1)
    with pytest.raises(ConfigError, match="1 and then 0 in every row"):
        build("encoder", [left], tmp_path, context=CONTEXT)
    kinds = padded() | {"token_type_ids": texts()}
    with pytest.raises(ConfigError, match="token_type_ids must be left out, or all 0"):
        build("encoder", [kinds], tmp_path, context=CONTEXT)


def test_transformers_are_known():
    assert all(is_transformer(make()) for make in MODELS.values())
    assert not is_transformer(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2)))


def families():
    transformers = pytest.importorskip("transformers")
    small = {
        "vocab_size": 30, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
        "num_attention_heads": 4, "max_position_embeddings": CONTEXT,
    }  # fmt: skip
    torch.manual_seed(0)
    yield transformers.LlamaForCausalLM(transformers.LlamaConfig(num_key_value_heads=2, **small))
    yield transformers.BertForSequenceClassification(transformers.BertConfig(**small))


def test_families_of_transformers_are_understood(tmp_path):
    for model in families():
        model.eval()
        path = tmp_path / "family.vq.safetensors"
        compressed = copy.deepcopy(model)
        recipe = Recipe({"*embed*": None, "*": Int8()})
        vq.compress_(compressed, recipe, progress=False)
        vq.save(compressed, path, progress=False)
        batch = texts() if "Llama" in type(model).__name__ else padded()
        graph = add_tokens(path, model, [batch], progress=False)
        lengths = None if torch.is_tensor(batch) else batch["attention_mask"].sum(1).numpy()
        tokens = batch if torch.is_tensor(batch) else batch["input_ids"]
        with torch.no_grad():
            dense = vq.load(path, into=copy.deepcopy(model), progress=False).eval()
            real = (dense(batch) if lengths is None else dense(**batch)).logits.numpy()
        found = graph.dequantize(graph.run(tokens.numpy(), lengths=lengths))
        assert np.abs(found - real).max() < 0.05 * np.abs(real).max()
