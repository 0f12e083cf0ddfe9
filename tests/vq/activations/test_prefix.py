"""A prefix is what tokens in front would have been: with masks, caches, in parts and in copies."""

import copy

import pytest
import torch

from signbook.zoo.llama import Llama, LlamaConfig
from tests.rescomp.models import bert, gpt2
from tests.vq.activations.models import small
from vq.activations.prefix import attentions, prefix_of, prefixes
from vq.errors import ConfigError

FRONT = torch.tensor([7, 3, 1])
TOKENS = torch.tensor([[5, 9, 11, 4, 8], [6, 6, 2, 30, 12]])


def wide(model):
    """In float64, rotary tables included, so that errors of the method would show."""
    model = model.double()
    for module in model.modules():
        if hasattr(module, "inv_freq"):
            module.inv_freq = module.inv_freq.double()
    return model


def with_prefix(model, tokens=FRONT):
    model = copy.deepcopy(model)
    for name, one in prefixes(model, tokens).items():
        one.enter(model.get_submodule(name))
    return model


def in_front(tokens):
    return torch.cat([FRONT.expand(len(tokens), -1), tokens], dim=1)


def zoo():
    torch.manual_seed(0)
    return Llama(LlamaConfig(32, 48, 2, 4, 2, 50, 16)).eval()


@torch.no_grad()
@pytest.mark.parametrize("build", [small, zoo])
def test_it_equals_the_tokens_in_front(build):
    model = build().double()
    run = (lambda m, x: m(x).logits) if build is small else (lambda m, x: m(x))
    want = run(model, in_front(TOKENS))[:, len(FRONT) :]
    found = run(with_prefix(model), TOKENS)
    assert not torch.allclose(run(model, TOKENS), want, atol=1e-3)
    # Rotary angles are float32 in either model.
    torch.testing.assert_close(found, want, rtol=0, atol=1e-6)


@torch.no_grad()
def test_it_equals_them_to_1e_10_where_angles_are_exact(monkeypatch):
    from transformers.models.llama import modeling_llama

    def forward(self, x, position_ids):
        speeds = 2.0 ** -torch.arange(self.inv_freq.numel()).double()  # exact products
        angles = position_ids[..., None].double() * speeds
        both = torch.cat([angles, angles], dim=-1)
        return both.cos(), both.sin()

    monkeypatch.setattr(modeling_llama.LlamaRotaryEmbedding, "forward", forward)
    model = small().double()
    want = model(in_front(TOKENS)).logits[:, len(FRONT) :]
    error = with_prefix(model)(TOKENS).logits - want
    assert float(error.abs().max()) < 1e-10


@torch.no_grad()
def test_padding_and_generation_by_cache_are_those_of_the_tokens_in_front():
    model = small().double()
    own = with_prefix(model)
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    places = (mask.cumsum(1) - 1).clamp(min=0)
    ones = torch.ones(2, len(FRONT), dtype=torch.long)
    want = model(
        in_front(TOKENS), attention_mask=torch.cat([ones, mask], 1),
        position_ids=torch.cat([torch.arange(3).expand(2, -1), places + 3], 1),
    ).logits[:, 3:]  # fmt: skip
    found = own(TOKENS, attention_mask=mask, position_ids=places).logits
    torch.testing.assert_close(found[mask.bool()], want[mask.bool()], rtol=0, atol=1e-6)
    settings = {"max_new_tokens": 6, "do_sample": False, "min_new_tokens": 6}
    said = own.generate(TOKENS, attention_mask=torch.ones_like(TOKENS), **settings)
    told = model.generate(in_front(TOKENS), attention_mask=in_front(TOKENS) > -1, **settings)
    assert torch.equal(said, told[:, 3:])
    slow = own.generate(TOKENS, attention_mask=TOKENS > -1, use_cache=False, **settings)
    assert torch.equal(said, slow)


@torch.no_grad()
def test_copies_have_their_own_and_parts_run_alone_again():
    model = with_prefix(small())
    twin = copy.deepcopy(model)
    block = twin.model.layers[0].self_attn
    assert prefix_of(block).module is block and prefix_of(model.model.layers[0]) is None
    assert torch.equal(model(TOKENS).logits, twin(TOKENS).logits)
    assert torch.equal(twin(TOKENS).logits, twin(TOKENS).logits)


def test_attentions_are_seen_with_their_heads_and_whether_they_look_ahead():
    for build, heads, ahead in ((small, 2, False), (zoo, 2, False), (bert, 4, True)):
        model = build()
        found = attentions(model, lambda model=model: model(TOKENS))
        assert len(found) == 2 and {one.looks_ahead for one in found.values()} == {ahead}
        assert {tuple(one.keys.shape[:2]) for one in found.values()} == {(heads, 5)}
        assert {one.heads for one in found.values()} == {4}
    masked = {"input_ids": TOKENS, "attention_mask": torch.tensor([[1, 1, 1, 1, 0]] * 2)}
    for build, ahead in ((small, False), (bert, True)):
        model = build()
        found = attentions(model, lambda model=model: model(**masked))
        assert {one.looks_ahead for one in found.values()} == {ahead}


def test_what_cannot_have_one_is_said():
    model = with_prefix(small())
    model.set_attn_implementation("eager")
    with pytest.raises(ConfigError, match="must attend by torch's scaled_dot_product_attention"):
        model(TOKENS)
    with pytest.raises(ConfigError, match="must take position_ids to have tokens in front, and S"):
        prefixes(torch.nn.Sequential(torch.nn.Linear(2, 2)), FRONT)
    with pytest.raises(ConfigError, match=r"must have relative positions .*GPT2LMHeadModel takes"):
        prefixes(gpt2(), FRONT)
