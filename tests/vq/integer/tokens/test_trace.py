"""What a run of a model becomes, and what has no rule in integers, named with its layer."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.vq.integer.tokens.models import CONTEXT, MODELS, data, padded
from vq.errors import ConfigError
from vq.integer.tokens.trace import Call, trace_transformer


def traced(name):
    batch = data(name)
    if name == "encoder":
        rows = {key: value[:2] for key, value in batch.items()}
        call = Call((), rows, rows["input_ids"], rows["attention_mask"])
    else:
        main = batch[:2]
        call = Call((main,), {}, main)
    return trace_transformer(MODELS[name](), call)


def ops(drafts):
    return [draft.op for draft in drafts]


def test_a_language_model_is_understood():
    drafts, factor = traced("llama")
    assert factor == 1.0 and ops(drafts).count("angles") == 1
    assert {*ops(drafts)[:9]} == {
        "angles", "embedding", "linear", "rms_norm", "rotary", "tokens"
    }  # fmt: skip
    attention = next(draft for draft in drafts if draft.op == "attention")
    assert attention.settings == {"heads": 4, "kv_heads": 2, "causal": True}
    assert [one.op for one, _ in attention.inputs] == ["rotary", "rotary", "linear"]
    assert {d.settings["pairs"] for d in drafts if d.op == "rotary"} == {"adjacent"}


def test_an_image_becomes_rows_behind_a_class_token():
    drafts, _ = traced("vision")
    kinds = ops(drafts)
    assert kinds[:8] == [
        "input", "conv", "function", "conv", "places", "place", "constant", "add"
    ]  # fmt: skip
    assert kinds.count("constant") == 1 and kinds[-3:] == ["select", "layer_norm", "linear"]
    starts = [draft.settings["start"] for draft in drafts if draft.op == "slice"]
    assert starts == [0, 8, 16]


def test_padding_and_the_mean_over_it_are_understood():
    drafts, factor = traced("encoder")
    attention = next(draft for draft in drafts if draft.op == "attention")
    assert not attention.settings["causal"]
    assert ops(drafts)[-2:] == ["mean", "rms_norm"] and factor == pytest.approx(8**-0.5)
    assert {d.settings["pairs"] for d in drafts if d.op == "rotary"} == {"halves"}


class Odd(nn.Module):
    """Rows of tokens, and one thing that is not known."""

    def __init__(self, what):
        super().__init__()
        self.what = what
        self.words = nn.Embedding(30, 8)
        self.odd = nn.Identity()
        self.last = nn.Linear(8, 8)
        self.odd.forward = self.act

    def act(self, x, mask):
        return getattr(self, self.what)(x, mask)

    def forward(self, tokens, mask=None):
        return self.last(self.odd(self.words(tokens), mask))

    def cumsum(self, x, mask):
        return x.cumsum(1)

    def matmul(self, x, mask):
        return (x @ x.transpose(1, 2)).softmax(-1) @ x

    def heads_of(self, x):
        return x.unflatten(-1, (2, 4)).transpose(1, 2)

    def biased(self, x, mask):
        q = self.heads_of(x)
        bias = torch.rand(x.shape[1], x.shape[1])
        return F.scaled_dot_product_attention(q, q, q, attn_mask=bias).transpose(1, 2).flatten(2)

    def window(self, x, mask):
        q = self.heads_of(x)
        near = torch.ones(x.shape[1], x.shape[1]).tril().triu(-1).bool()
        return F.scaled_dot_product_attention(q, q, q, attn_mask=near).transpose(1, 2).flatten(2)

    def careless(self, x, mask):
        q = self.heads_of(x)
        return F.scaled_dot_product_attention(q, q, q).transpose(1, 2).flatten(2)

    def permuted(self, x, mask):
        return x.flip(-1)

    def rows(self, x, mask):
        return x[:, 1:]

    def gains(self, x, mask):
        return x * torch.arange(8.0)

    def texts(self, x, mask):
        return x.flip(0)

    def power(self, x, mask):
        return x.pow(3)

    def average(self, x, mask):
        return x.mean(1, keepdim=True)

    def quotient(self, x, mask):
        return x / (x + 1)

    def asks(self, x, mask):
        return x if x.max() > 0 else -x


@pytest.mark.parametrize("what,message", [
    ("cumsum", "layer 'odd': must compute what integer graphs of tokens have a rule for, not cums"),
    ("matmul", "not matmul|not softmax"),
    ("biased", "not attention with a bias"),
    ("window", "not attention with a mask that is neither causal nor of padding"),
    ("careless", "not attention that takes padding in"),
    ("permuted", "not channels or rows in another order"),
    ("rows", "not a part of the rows"),
    ("gains", "not a product with a constant that is no gain of a norm or a linear"),
    ("texts", "not rows of several texts in one"),
    ("power", "not a power of 3"),
    ("average", "not a mean over rows that takes padding in"),
    ("quotient", "not a quotient of values"),
    ("asks", "module 'odd': must compute the same whatever its inputs are"),
])  # fmt: skip
def test_what_has_no_rule_is_named_with_its_layer(what, message):
    batch = {key: value[:2] for key, value in padded().items()}
    tokens, mask = batch["input_ids"], batch["attention_mask"]
    with pytest.raises(ConfigError, match=message):
        trace_transformer(Odd(what), Call((tokens, mask), {}, tokens, mask))


def test_a_context_that_the_model_cannot_take_is_refused():
    tokens = torch.zeros(2, CONTEXT + 1, dtype=torch.long)
    with pytest.raises(ConfigError, match=r"tokens must be at most 12"):
        trace_transformer(MODELS["llama"](), Call((tokens,), {}, tokens))
    mask = torch.ones_like(tokens)
    with pytest.raises(ConfigError, match=r"model must take inputs \[2, 13\], but"):
        trace_transformer(MODELS["encoder"](), Call((tokens, mask), {}, tokens, mask))


def test_a_model_without_an_output_is_refused():
    class Nothing(nn.Module):
        def forward(self, tokens):
            return torch.ones(2)

    tokens = torch.zeros(2, 3, dtype=torch.long)
    with pytest.raises(ConfigError, match="must give one tensor that depends on its input"):
        trace_transformer(Nothing(), Call((tokens,), {}, tokens))
