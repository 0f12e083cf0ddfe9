"""Built-in networks against published totals, and against models that are traced."""

import pytest
import torch

from hwsim.workloads import Workload, plan_workload, workload, workload_of_model
from rtl import AcceleratorConfig
from signbook.zoo.efficientnet import EfficientNetLite0
from signbook.zoo.resnet import resnet20
from vq import Int8, Recipe


def products(found: Workload) -> list[tuple]:
    """What has weights, in order: all that a weight stream depends on."""
    return [
        (layer.name, layer.op, layer.weight_shape, layer.positions, layer.stride, layer.padding)
        for layer in found.expanded().layers
        if layer.weight_shape
    ]


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [
        # Parameters to the last one as timm, torchvision and transformers count them.
        ("deit-tiny", 5_717_416, 1.25e9),
        ("deit-small", 22_050_664, 4.6e9),
        ("deit-base", 86_567_656, 17.56e9),
        ("resnet-50", 25_557_032, 4.09e9),
        ("resnet-20", 269_722, 40.6e6),
        # One row: every weight but the embedding once, and attention to 512 words.
        ("llama-2-7b", 6_738_415_616, 6.741e9),
        ("minilm-l6", 22_565_376, 1.434e9),
        # The head reads the embedding's weights, which count once.
        ("smollm2-135m", 134_515_008, 152.17e6),
        ("efficientnet-lite0", 4_652_008, 385.2e6),
    ],
)
def test_totals(name: str, parameters: int, macs: float) -> None:
    found = workload(name)
    assert found.parameters == parameters
    assert found.macs == pytest.approx(macs, rel=0.005)
    assert not found.trained and found.source


def test_decoding_and_prefill() -> None:
    one = workload("llama-2-7b:m=1,context=512")
    assert one == workload("llama-2-7b")
    linears = one.macs - one.matmul_macs
    assert linears == 32 * (4 * 4096**2 + 3 * 4096 * 11008) + 32000 * 4096
    # Two products of every word with 512 others, in each of 32 blocks of 4096.
    assert one.matmul_macs == 32 * 2 * 512 * 4096
    eight = workload("llama-2-7b:m=8,context=2048")
    assert eight.macs - eight.matmul_macs == 8 * linears
    assert eight.matmul_macs == 8 * 4 * one.matmul_macs
    prompt = workload("llama-2-7b:prefill=100")
    assert prompt.matmul_macs == 32 * 2 * 100 * 100 * 4096
    head = prompt.layers[-1]
    assert (head.name, head.rows) == ("lm_head", 1)
    assert {layer.rows for layer in prompt.layers if layer.op == "linear"} == {1, 100}


def test_resnet_20_is_the_one_of_the_zoo() -> None:
    traced = workload_of_model(resnet20(), torch.rand(1, 3, 32, 32))
    built_in = workload("resnet-20")
    assert products(traced) == products(built_in)
    for field in ("parameters", "macs", "activation_bytes"):
        assert getattr(traced, field) == getattr(built_in, field)
    assert [layer.op for layer in traced.layers] == [layer.op for layer in built_in.layers]


def test_efficientnet_lite0_is_the_one_of_the_zoo() -> None:
    """The zoo's pads its images in layers of their own, which is no operation here."""

    def padded(found: Workload) -> list[tuple]:
        return [
            (
                layer.name, layer.op, layer.weight_shape, layer.groups, layer.stride,
                [layer.height + sum(layer.padding[0]), layer.width + sum(layer.padding[1])],
            )
            for layer in found.layers
        ]  # fmt: skip

    with torch.device("meta"):
        traced = workload_of_model(EfficientNetLite0(), torch.rand(1, 3, 224, 224))
    built_in = workload("efficientnet-lite0")
    assert [one for one in padded(traced) if one[2]] == [one for one in padded(built_in) if one[2]]
    for field in ("parameters", "macs"):
        assert getattr(traced, field) == getattr(built_in, field)
    assert [layer.op for layer in traced.layers] == [layer.op for layer in built_in.layers]
    # One less before than after, where the stride is 2.
    assert {(x.kernel[0], x.stride[0], x.padding[0]) for x in built_in.layers if x.groups > 1} == {
        (3, 1, (1, 1)), (3, 2, (0, 1)), (5, 1, (2, 2)), (5, 2, (1, 2)),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "timm_name"),
    [("deit-tiny", "deit_tiny_patch16_224"), ("resnet-50", "resnet50")],
)
def test_shapes_are_those_of_timm(name: str, timm_name: str) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    traced = workload_of_model(timm.create_model(timm_name), torch.rand(1, 3, 224, 224))
    built_in = workload(name)
    assert products(traced) == products(built_in)
    for field in ("parameters", "macs", "activation_bytes"):
        assert getattr(traced, field) == getattr(built_in, field)


LLAMA = {
    "llama-2-7b": dict(
        hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32,
        vocab_size=32000, tie_word_embeddings=False,
    ),
    "smollm2-135m": dict(
        hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, vocab_size=49152, tie_word_embeddings=True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LLAMA)
def test_shapes_are_those_of_transformers(name: str) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA[name]))
        model.tie_weights()  # tensors on this device are made one by one
        sample = {
            "input_ids": torch.zeros(1, 16, dtype=torch.long),
            "attention_mask": torch.zeros(1, 1, 16, 16),
            "logits_to_keep": 1,
            "use_cache": False,
        }
        traced = workload_of_model(model, sample)
    built_in = workload(f"{name}:prefill=16")
    assert products(traced) == products(built_in)
    assert traced.layers[-1].shares == built_in.layers[-1].shares
    for field in ("parameters", "macs", "matmul_macs"):
        assert getattr(traced, field) == getattr(built_in, field)


def test_heads_that_share_keys_read_them_once() -> None:
    """Keys of 3 heads of 64, for each of 512 words; 9 queries and 9 rows of scores."""
    layers = {layer.name: layer for layer in workload("smollm2-135m:context=512").layers}
    scores = layers["model.layers.{}.self_attn.scores"]
    assert scores.activation_bytes == 3 * 512 * 64 + 9 * 64 + 9 * 512
    assert scores.macs == 9 * 512 * 64


def test_the_head_of_a_tied_model_streams_what_its_embedding_is() -> None:
    smollm = workload("smollm2-135m")
    recipe = Recipe({"*": None, "model.embed_tokens": Int8()})
    config = AcceleratorConfig(output_bytes=1 << 17)
    planned = plan_workload(smollm, recipe, config)
    (head,) = planned.steps
    assert (head.name, head.entry.geometry.name) == ("lm_head", "model.embed_tokens")
    assert head.entry.stream.nbytes == 49152 * 576


def test_minilm_is_a_bert_of_its_size() -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.BertConfig(
        hidden_size=384, intermediate_size=1536, num_hidden_layers=6, num_attention_heads=12,
        vocab_size=30522,
    )  # fmt: skip
    with torch.device("meta"):
        model = transformers.BertModel(config, add_pooling_layer=False)
        mask = torch.zeros(1, 1, 32, 32)
        traced = workload_of_model(model, (torch.zeros(1, 32, dtype=torch.long), mask))
    built_in = workload("minilm-l6:tokens=32")
    assert products(traced) == products(built_in)
    for field in ("parameters", "macs", "matmul_macs"):
        assert getattr(traced, field) == getattr(built_in, field)
