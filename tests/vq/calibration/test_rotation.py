"""Rotations: orthogonal, exact in full precision, refused where a model is built otherwise."""

import copy

import pytest
import torch
from torch import nn

from rescomp import GPTQ, quantize_, rotate_
from tests.rescomp.models import bert, gpt2, llama, stories, tokens
from vq.calibration.rotation import hadamard, orthogonal
from vq.errors import ConfigError

KNOWN = [1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 48, 64, 80, 96, 128, 168, 320, 384]


@pytest.mark.parametrize("size", KNOWN)
def test_hadamard_matrices(size):
    found = hadamard(size)
    assert found.shape == (size, size) and (found.abs() == 1).all()
    assert torch.equal(found @ found.T, size * torch.eye(size, dtype=torch.float64))


def test_other_sizes_have_none_here():
    assert [n for n in range(1, 41) if hadamard(n) is not None] == [n for n in KNOWN if n <= 40]
    assert hadamard(0) is None and hadamard(172) is None


@pytest.mark.parametrize("size", [1, 3, 8, 24, 172])
def test_rotations_are_orthogonal_and_follow_their_seed(size):
    first, again, other = (orthogonal(size, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    eye = torch.eye(size, dtype=torch.float64)
    torch.testing.assert_close(first @ first.T, eye, rtol=0, atol=1e-12)
    assert torch.equal(first, again)
    assert size == 1 or not torch.equal(first, other)


def uneven(**settings):
    """A Llama whose norms and biases are not trivial."""
    model = llama(**settings)
    for name, parameter in model.named_parameters():
        if "norm" in name or name.endswith("bias"):
            nn.init.uniform_(parameter, 0.5, 2)
    return model


SHAPES = {
    "hadamard": {},
    "random": {
        "hidden_size": 20,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 6,
    },
    "biases": {"attention_bias": True, "mlp_bias": True},
    "tied": {"tie_word_embeddings": True},
}


@pytest.mark.parametrize("heads", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_logits_are_the_same(shape, heads):
    pytest.importorskip("transformers")
    model = uneven(**SHAPES[shape]).double()
    batch = tokens(1)[0]
    before = model(batch).logits
    hidden = model.model(batch).last_hidden_state
    weights = copy.deepcopy(model.state_dict())
    rotate_(model, heads=heads, seed=3)
    # The norms compute in float32 whatever they are given; all else is float64 here.
    torch.testing.assert_close(model(batch).logits, before, rtol=1e-6, atol=1e-6)
    assert not torch.allclose(model.model(batch).last_hidden_state, hidden, atol=1e-2)
    assert all((m.weight == 1).all() for n, m in model.named_modules() if n.endswith("norm"))
    assert not model.config.tie_word_embeddings
    assert torch.equal(
        model.state_dict()["model.embed_tokens.weight"], model.model.embed_tokens.weight
    )
    changed = {n for n, w in model.state_dict().items() if not torch.equal(w, weights[n])}
    v = "model.layers.0.self_attn.v_proj.bias"
    assert (v in changed) == (heads and shape == "biases")


@torch.no_grad()
def test_logits_in_single_precision():
    pytest.importorskip("transformers")
    model = uneven()
    batch = tokens(1)[0]
    before = model(batch).logits
    rotate_(model)
    torch.testing.assert_close(model(batch).logits, before, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_large_channel_is_spread():
    pytest.importorskip("transformers")
    model = llama(hidden_size=32)
    model.model.embed_tokens.weight[:, 3] *= 100
    rotate_(model)
    rows = model.model.embed_tokens.weight[3:]
    assert rows.abs().amax(dim=1).div(rows.square().mean(dim=1).sqrt()).max() < 2


@torch.no_grad()
def test_a_real_model_computes_the_same():
    """stories260K, through the zoo's own Llama as well."""
    pytest.importorskip("transformers")
    from signbook.data import tinystories
    from signbook.zoo.llama import load_stories260k
    from tests.signbook.shared import shared

    model = stories()
    shared("tinystories_text")
    ((batch, _),) = tinystories(limit=2, batch=2, length=128).batches
    want = load_stories260k(shared("stories260K/stories260K.bin"))(batch)
    torch.testing.assert_close(model(batch).logits, want, rtol=1e-3, atol=1e-3)
    rotate_(model)
    torch.testing.assert_close(model(batch).logits, want, rtol=1e-3, atol=1e-3)


def test_rotated_models_are_quantised_and_stored(tmp_path):
    pytest.importorskip("transformers")
    import vq.hf

    model = uneven(tie_word_embeddings=True)
    rotate_(model)
    with pytest.warns(UserWarning, match="a token for each of 40 inputs"):
        quantize_(model, tokens(1), 4, GPTQ())
    vq.hf.save_pretrained(model, tmp_path)
    same = vq.hf.from_pretrained(tmp_path)
    batch = tokens(1)[0]
    torch.testing.assert_close(same(batch).logits, model(batch).logits, rtol=1e-5, atol=1e-6)
    with pytest.raises(ConfigError, match=r"must not be compressed yet; rotate first"):
        rotate_(model)


def test_other_models_are_refused_unchanged():
    pytest.importorskip("transformers")
    for build, text in ((bert, "must hold its layers in 'model'"), (gpt2, "in 'model'")):
        with pytest.raises(ConfigError, match=f"^model .* is not built like Llama and.*\n.*{text}"):
            rotate_(build())
    odd = llama()
    odd.model.layers[1].mlp.down_proj = nn.Identity()
    odd.model.layers[2].input_layernorm = nn.LayerNorm(24)
    odd.model.layers[2].extra = nn.LayerNorm(24)
    before = copy.deepcopy(odd.state_dict())
    with pytest.raises(ConfigError) as caught:
        rotate_(odd)
    text = str(caught.value)
    assert "has 3 problems" in text
    assert "model.layers.1.mlp.down_proj must be a linear layer" in text
    assert "model.layers.2.input_layernorm must be an RMS norm with a plain weight" in text
    assert "model.layers.2 must not hold extra" in text
    assert all(torch.equal(w, before[n]) for n, w in odd.state_dict().items())
