"""What remains is stored, read to the bit, counted, and refused where nothing can honour it."""

import copy
import json

import pytest
import torch
from torch import nn

import vq
from signbook.commands.inspect import inspect_file
from signbook.evaluation import load_integer
from signbook.packed import export_packed
from tests.vq.activations.models import READERS, attach_carried, remaining_model, small, transform
from tests.vq.activations.test_prefix import TOKENS
from vq.activations.rounding import Rounding
from vq.activations.runtime import attach, attached, detach, runtime_tensors
from vq.calibration.rotation import rotate_
from vq.container import Kept, Layer, open_container, write_container
from vq.container.runtime import PARTS
from vq.errors import ConfigError, ContainerError
from vq.export import export_dense, export_dram, export_onnx
from vq.formats.kept import kept_of
from vq.formats.model import provenance_of
from vq.formats.remaining import all_remaining, remaining
from vq.integer.build import integerize
from vq.learning.checkpoint import digest_of
from vq.methods.fused import split_fused_


@pytest.fixture(scope="module")
def model():
    return remaining_model()


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("runtime") / "model.vq.safetensors"
    assert vq.save(model, path).layout == "vqstream/2"
    return path


@torch.no_grad()
def test_a_loaded_model_computes_the_same_bits_and_is_stored_again(model, file, tmp_path):
    loaded = vq.load(file, into=small())
    assert torch.equal(loaded(TOKENS).logits, model(TOKENS).logits)
    assert runtime_tensors(loaded) == runtime_tensors(model)
    weights = loaded.state_dict()
    again = small()
    again.load_state_dict(weights)
    assert not torch.equal(again(TOKENS).logits, model(TOKENS).logits)
    twin = copy.deepcopy(model)
    assert torch.equal(twin(TOKENS).logits, model(TOKENS).logits)
    vq.save(twin, tmp_path / "twin.vq.safetensors")
    assert (tmp_path / "twin.vq.safetensors").read_bytes() == file.read_bytes()
    detach(twin)
    assert vq.save(twin, tmp_path / "twin.vq.safetensors").layout == "vqstream/1"
    assert not any(map(remaining, twin.modules()))
    settings = {"max_new_tokens": 4, "do_sample": False, "attention_mask": torch.ones_like(TOKENS)}
    assert torch.equal(loaded.generate(TOKENS, **settings), model.generate(TOKENS, **settings))


@torch.no_grad()
def test_a_transform_changes_nothing_but_what_is_rounded():
    model = small().double()
    want = model(TOKENS).logits
    layers = [f"model.layers.{i}.self_attn.{n}_proj" for i in (0, 1) for n in "qkv"]
    for i in (0, 1):
        attach_carried(model, transform(32, 8, dtype=torch.float64), layers[3 * i : 3 * i + 3])
    assert float((model(TOKENS).logits - want).abs().max()) < 1e-10
    assert len(runtime_tensors(model)) == 1 + 2 * 4


def test_inspection_counts_it(file):
    document = inspect_file(file)
    rows = {row["kind"]: row for row in document["runtime"]}
    assert rows["transform"]["layers"] == READERS
    assert rows["transform"]["macs_per_token"] == 2 * 32 * (8 + 8)
    assert rows["prefix"]["macs_per_token"] == 2 * 2 * 4 * 2 * 8
    with open_container(file) as container:
        own = sum(len(container.kept(n).data) for n in container.kept_names if container.is_own(n))
        spans = container.tensor_spans()
        stored = sum(spans[n].nbytes for n in container.kept_names) - own - spans[PARTS].nbytes
    assert sum(row["bytes"] for row in document["runtime"]) == stored
    dense = sum(p.numel() for p in small().parameters())
    assert document["ratio_whole_model_fp32"] == 4 * dense / document["file_bytes"]


def test_what_cannot_honour_it_refuses(model, file, tmp_path):
    out = tmp_path / "out"

    def refused(match, call, kind=ConfigError):
        with pytest.raises(kind, match=match):
            call()
        assert not out.exists()

    parts = r"parts remain .*\(transform, rounding, prefix\)"
    refused(f"dense weights must be made of a file .*{parts}", lambda: export_dense(file, out))
    (tmp_path / "config.json").write_text(small().config.to_json_string())
    hf = tmp_path / "model.vq.safetensors"
    hf.write_bytes(file.read_bytes())
    for to in ("gptq", "compressed-tensors"):
        refused(f"--to {to} must be made of", lambda to=to: _packed(hf, to, out))
    refused("an integer graph must be made of a file", lambda: load_integer(file))
    with open_container(file) as container:
        refused("an integer graph must be made", lambda: integerize(model, container, [TOKENS]))
    dense = vq.load(file, into=small())
    refused("vq.load must be given a model .*prefix", lambda: vq.load(file, into=dense))
    refused("rotation must be given a model whose", lambda: rotate_(dense))
    refused("vq.plan must be given a model", lambda: vq.plan(dense, vq.Recipe({"*": None})))
    refused("taking layers apart must be given", lambda: split_fused_(dense, ["*.q_proj"]))
    pytest.importorskip("onnxscript")
    refused("exporting to ONNX must be given", lambda: export_onnx(dense, TOKENS, out))


def _packed(path, to, out):
    try:
        export_packed(path, to, out)
    finally:
        if out.exists() and not any(out.iterdir()):
            out.rmdir()


def test_a_memory_image_lists_it(file, tmp_path):
    document = export_dram(file, tmp_path / "image")
    assert {row["kind"] for row in document["runtime"]} == {"transform", "rounding", "prefix"}
    assert json.loads(json.dumps(document))["tensors"][PARTS]["bytes"] > 0


def forged(file, path, **changes):
    """A copy of a file with other contents of kept tensors."""
    with open_container(file) as container:
        kept = {name: container.kept(name) for name in container.kept_names}
        made = remaining_model()
        layers = [layer.to_layer() for layer in vq.formats.model.compressed_layers(made)]
        kept |= {f"_runtime.{name.replace('_', '.')}": t for name, t in changes.items()}
        write_container(path, layers, kept, provenance_of(made))


@pytest.mark.parametrize(
    ("match", "changes"),
    [
        ("'_runtime.0.order' must be a permutation", {"0_order": torch.zeros(32).int()}),
        ("'_runtime.0.scale' must be finite", {"0_scale": torch.full((32,), torch.nan)}),
        (r"part 1 .* activation clip must be in \(0, 1\], not", {"1_clip": torch.full((1,), 2.0)}),
        ("part 2 at run time: scale must be positive, not -1", {"2_scale": torch.full((1,), -1.0)}),
    ],
)  # fmt: skip
def test_damaged_values_are_refused_and_leave_nothing(file, tmp_path, match, changes):
    path = tmp_path / "forged.vq.safetensors"
    forged(file, path, **{name: kept_of(tensor) for name, tensor in changes.items()})
    fresh = small()
    before = {name: t.clone() for name, t in fresh.state_dict().items()}
    with pytest.raises(ContainerError, match=match):
        vq.load(path, into=fresh)
    assert not any(map(remaining, fresh.modules()))
    assert all(torch.equal(t, before[name]) for name, t in fresh.state_dict().items())


def test_models_without_the_modules_and_taken_names_are_refused(tmp_path):
    model = nn.Sequential(nn.Linear(8, 8))
    attach(model, Rounding(4), ["0"])
    vq.compress_(model, vq.Recipe({"*": vq.Int8()}))
    kept = {n: k for n, k in runtime_tensors(model).items()}
    text = kept[PARTS].data.replace(b'"0"', b'"9"')
    kept[PARTS] = Kept("U8", (len(text),), text)
    layer = next(vq.formats.model.compressed_layers(model)).to_layer()
    with pytest.raises(ContainerError, match="layer '9' must be a compressed linear"):
        write_container(tmp_path / "a.vq.safetensors", [layer], kept)
    odd = nn.Sequential(nn.Linear(8, 8))
    odd.add_module("_runtime", nn.LayerNorm(8))
    with pytest.raises(
        ConfigError, match=r"begin with _runtime\. are those of what remains at run"
    ):
        vq.compress_(odd, vq.Recipe({"0": vq.Int8()}))
    assert isinstance(layer, Layer)


def test_checkpoints_are_of_a_model_with_its_parts():
    model = nn.Sequential(nn.Linear(8, 8))
    found = {digest_of(model)}
    for bits in (4, 8):
        own = copy.deepcopy(model)
        attach(own, Rounding(bits), ["0"])
        found.add(digest_of(own))
    assert len(found) == 3


def test_a_block_that_fails_leaves_what_remained_before_and_nothing_more():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    known = Rounding(8)
    attach(model, known, ["0"])
    with pytest.raises(KeyboardInterrupt), attached(model):
        attach(model, Rounding(4), ["1"])
        raise KeyboardInterrupt
    assert all_remaining(model) == [known]
