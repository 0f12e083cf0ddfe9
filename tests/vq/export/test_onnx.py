"""Models as ONNX: onnxruntime gives what torch gives, at any batch, from inputs by name."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vq
from tests.vq.models import Net, unchanged
from vq import SSVQ, Int4, Int8, Recipe
from vq.errors import ConfigError, OutputError
from vq.export import export_onnx
from vq.export import onnx as module
from vq.export.runtime import session

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


@dataclass
class Said:
    logits: Tensor
    loss: Tensor | None = None


class Text(nn.Module):
    """A small model of texts, with its inputs by keyword and one weight in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.norm = nn.Embedding(20, 8), nn.BatchNorm1d(8)
        self.fc, self.head = nn.Linear(8, 8), nn.Linear(8, 20, bias=False)
        self.head.weight = self.words.weight

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Said:
        x = self.words(input_ids) * attention_mask[..., None]
        x = self.norm(x.mT).mT
        x = torch.relu(self.fc(x)) + x.cumsum(1)
        return Said(self.head(x))


class Fixed(nn.Module):
    """Computes with the number of its inputs as a number of Python."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) / len(x)


def texts(batch=3, length=6):
    ids = torch.randint(0, 20, (batch, length), generator=torch.Generator().manual_seed(batch))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids).tril(2)}


def compressed(make, recipe, folder):
    """A model as it is loaded from a container, and the container."""
    torch.manual_seed(0)
    model, path = make(), folder / "x.vq.safetensors"
    vq.compress_(model, Recipe(recipe))
    vq.save(model, path)
    return vq.load(path, into=make()), path


def agrees(model, path, batches, names):
    """Compare with torch; both round in fp32, here to at most 1e-5 of outputs near 1."""
    run = session("model", path.read_bytes())
    for inputs in batches:
        given = inputs if isinstance(inputs, dict) else dict(zip(names, [inputs], strict=True))
        with torch.no_grad():
            want = model.eval()(**given)
        (found,) = run({name: tensor.numpy() for name, tensor in given.items()})
        want = getattr(want, "logits", want).numpy()
        assert found.shape == want.shape
        assert np.abs(found - want).max() <= 1e-5 * max(1, np.abs(want).max())


def test_texts_by_keyword_of_any_batch_and_length(tmp_path):
    model, path = compressed(Text, {"fc": SSVQ(d=4, k=4), "*": Int8()}, tmp_path)
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    out = tmp_path / "x.onnx"
    document = export_onnx(model, texts(), out, int8=path)
    assert model.training and model.norm.training
    unchanged(model, before)
    assert document["inputs"] == [
        {"name": name, "dtype": "int64", "shape": ["batch", "sequence"]}
        for name in ("input_ids", "attention_mask")
    ]
    assert document["outputs"] == [
        {"name": "logits", "dtype": "float32", "shape": ["batch", "sequence", 20]}
    ]
    assert (document["opset"], document["notes"]) == (20, [])
    assert document["int8_layers"] == ["words", "fc"]
    assert document["checked"]["batches"] == [1, 2, 5]
    assert 0 <= document["checked"]["max_difference"] < 1e-5
    agrees(model, out, [texts(1, 2), texts(4, 9), texts(7, 5)], None)
    found = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(out).graph.initializer}
    for name in ("words", "fc"):
        codes, scale = found[f"{name}.weight"], found[f"{name}.weight_scale"]
        assert codes.dtype == np.int8
        weight = model.get_parameter(f"{name}.weight").detach().numpy()
        assert np.array_equal(codes.astype(np.float32) * scale.reshape(-1, 1), weight)
    assert found["words.weight_scale"].shape == (20,)
    assert found["fc.weight_scale"].shape == ()
    assert "fc.bias" in found
    assert not any(name.startswith(("model.", "codes_", "scale_")) for name in found)


def test_codebooks_become_dense_and_one_image_makes_any_batch(tmp_path):
    model, _ = compressed(Net, {"fc1": SSVQ(d=4, k=8)}, tmp_path)
    document = export_onnx(model, torch.randn(1, 16), tmp_path / "x.onnx", opset=18)
    assert document["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["batch", 16]}]
    assert document["outputs"] == [{"name": "output", "dtype": "float32", "shape": ["batch", 5]}]
    proto = onnx.load(tmp_path / "x.onnx")
    assert [(o.domain, o.version) for o in proto.opset_import] == [("", 18)]
    onnx.checker.check_model(proto, full_check=True)
    agrees(model, tmp_path / "x.onnx", [torch.randn(n, 16) for n in (1, 3, 8)], ["x"])


def test_a_size_that_the_model_computes_with_is_fixed_and_said(tmp_path):
    model = Fixed()
    document = export_onnx(model, [torch.randn(3, 4)], tmp_path / "x.onnx")
    assert document["inputs"] == [{"name": "x", "dtype": "float32", "shape": [3, 4]}]
    assert document["checked"]["batches"] == [3]
    assert document["notes"] == [
        "axis 'batch' is fixed: with it free, the export fails or computes something else"
    ]
    agrees(model, tmp_path / "x.onnx", [torch.randn(3, 4)], ["x"])


def test_what_onnxruntime_computes_otherwise_is_refused(tmp_path, monkeypatch):
    out = tmp_path / "x.onnx"
    out.write_bytes(b"before")
    monkeypatch.setattr(module, "session", lambda what, data: lambda inputs: [np.zeros((3, 3))])
    with pytest.raises(
        ConfigError,
        match=r"^Fixed: output 'output' must be in onnxruntime what it is in torch",
    ):
        export_onnx(Fixed(), torch.randn(3, 4), out)
    assert out.read_bytes() == b"before"


@pytest.mark.parametrize(
    ("want", "have", "differs"),
    [
        ([1.0, -np.inf], [1.0, -np.inf], 0.0),
        ([True, False], [True, False], 0.0),
        ([8.0, 2.0], [8.0, 2.001], 0.001),
        ([8.0, 2.0], [8.0, 2.1], None),
        ([8.0, np.inf], [8.0, 1.0], None),
        ([8.0, 2.0], [8.0, np.nan], None),
        ([8.0], [[8.0]], None),
        ([3, 7], [3, 6], None),
    ],
)
def test_differences_are_of_the_greatest_output(want, have, differs):
    trace = module._Trace(Fixed(), torch.randn(2, 4), torch.randn(2, 3), {}, 20)
    arrays = "output", np.array(want), np.array(have)
    if differs is None:
        with pytest.raises(ConfigError, match=r"^Fixed: output 'output' must be in onnxruntime"):
            trace._difference(*arrays)
    else:
        assert trace._difference(*arrays) == pytest.approx(differs)


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> None:
        return None


class Untraceable(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum().item() > 0 else x + 1


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        (
            Net(),
            torch.randn(3, 5),
            r"^model must accept export batch 1, float32 \[3, 5\], but",
        ),
        (Net(), {"y": torch.randn(3, 16)}, r"^model must accept export batch 1, \{y: float32 \[3"),
        (
            Fixed().double(),
            torch.randn(3, 4).double(),
            r"^Fixed: tensor 'fc.weight' must be float32",
        ),
        (
            nn.Identity(),
            torch.randn(3).half(),
            r"^Identity: tensor 'input' must be float32 .* float16$",
        ),
        (Nothing(), torch.randn(2), r"^Nothing must return tensors to be exported, not none$"),
        (nn.Identity(), (3,), r"^Identity must take tensors to be exported, not none$"),
        (
            Untraceable(),
            torch.randn(2),
            r"^Untraceable must be exportable to ONNX, but torch",
        ),
    ],
)
def test_models_and_inputs_that_cannot_be_exported(tmp_path, model, inputs, message):
    with pytest.raises(ConfigError, match=message):
        export_onnx(model, inputs, tmp_path / "x.onnx")
    assert not (tmp_path / "x.onnx").exists()


def test_containers_of_groups_alone_or_of_other_models_are_refused(tmp_path):
    model, path = compressed(Net, {"fc1": Int4()}, tmp_path)
    with pytest.raises(ConfigError, match="must hold a layer without groups of scales to be exp"):
        export_onnx(model, torch.randn(2, 16), tmp_path / "x.onnx", int8=path)
    _, path = compressed(Fixed, {"*": Int8()}, tmp_path)
    with pytest.raises(ConfigError, match=r"layer 'fc' must be the model's, of shape \[3, 4\]$"):
        export_onnx(model, torch.randn(2, 16), tmp_path / "x.onnx", int8=path)


def test_what_cannot_be_written_is_refused(tmp_path, monkeypatch):
    model = Fixed()
    model.register_buffer("large", torch.zeros(1).expand(2**29))
    with pytest.raises(ConfigError, match=r"^Fixed: weights must fit the 2 GB of one ONNX file"):
        export_onnx(model, torch.randn(2, 4), tmp_path / "x.onnx")
    with pytest.raises(ConfigError, match=r"^opset must be 18 to 23, not 17$"):
        export_onnx(Fixed(), torch.randn(2, 4), tmp_path / "x.onnx", opset=17)
    with pytest.raises(OutputError, match="must be writable"):
        export_onnx(Fixed(), torch.randn(2, 4), tmp_path / "missing" / "x.onnx")
    monkeypatch.delattr(torch.onnx, "ops")
    with pytest.raises(ConfigError, match=r"^exporting int8 layers: torch must be 2.8 or later"):
        export_onnx(Fixed(), torch.randn(2, 4), tmp_path / "x.onnx", int8=tmp_path / "any")


@pytest.mark.slow
@pytest.mark.parametrize("quantized", [False, True])
def test_images_of_the_digits_transformer_and_a_resnet(tmp_path, quantized):
    from signbook.zoo.digits import DigitsViT
    from signbook.zoo.resnet import resnet20

    for make, shape in ((DigitsViT, (1, 8, 8)), (resnet20, (3, 32, 32))):
        model, path = compressed(make, {"*": Int8()}, tmp_path)
        out = tmp_path / "x.onnx"
        given = torch.randn(64, *shape)
        document = export_onnx(model, given, out, int8=path if quantized else None)
        assert document["notes"] == []
        agrees(model, out, [torch.randn(n, *shape) for n in (1, 3, 17)], ["images"])
        dense = sum(tensor.nbytes for tensor in model.state_dict().values())
        assert (out.stat().st_size < dense / 2) == quantized


@pytest.mark.slow
def test_models_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 20, "bos_token_id": 1, "eos_token_id": 1}
    gpt2 = transformers.GPT2Config(n_positions=32, n_embd=16, n_layer=1, n_head=2, **sizes)
    llama = transformers.LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, **sizes
    )
    for kind, config in (
        (transformers.GPT2LMHeadModel, gpt2), (transformers.LlamaForCausalLM, llama),
    ):  # fmt: skip
        model, path = compressed(lambda k=kind, c=config: k(c), {"*": Int8()}, tmp_path)
        out = tmp_path / "x.onnx"
        document = export_onnx(model, texts(), out, int8=path)
        assert [row["name"] for row in document["outputs"]] == ["logits"]
        assert document["inputs"][0]["shape"] == ["batch", "sequence"]
        agrees(model, out, [texts(1, 2), texts(4, 9), texts(7, 5)], None)
