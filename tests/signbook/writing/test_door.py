"""Texts that language models write."""

import logging

import pytest
import torch
from torch import nn

from signbook.data.tokenizing import Words
from signbook.data.words import words_of
from signbook.loading import load_model
from signbook.meters.logits import logits_of
from signbook.writing.door import prompt_tokens, write
from signbook.zoo.llama import Llama, LlamaConfig
from tests.signbook.writing.models import CONTEXT, save_llama
from vq.errors import ConfigError

LETTERS = Words(
    lambda text: [ord(c) - 64 for c in text], lambda tokens: "".join(chr(64 + t) for t in tokens)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("transformers")
    found = tmp_path_factory.mktemp("writing")
    save_llama(found)
    return found


@pytest.fixture(scope="module")
def loaded(folder):
    """A container's model, dense and packed, and its tokenizer."""
    name, file = f"hf:{folder}", folder / "small.vq.safetensors"
    dense = load_model(name, file=file)
    exact = load_model(name, file=file, packed=True, activations="exact")
    return dense, exact, words_of(str(folder))


@torch.no_grad()
def most_probable(model: nn.Module, text: list[int], count: int) -> list[int]:
    found = list(text)
    for _ in range(count):
        found.append(int(logits_of(model(torch.tensor([found])))[0, -1].argmax()))
    return found[len(text) :]


def test_packed_models_write_what_dense_ones_do(loaded):
    dense, exact, words = loaded
    pieces: list[str] = []
    found = write(dense, words, "Once", tokens=40, show=pieces.append)
    again = write(exact, words, "Once", tokens=40)
    assert again.tokens == found.tokens and again.text == found.text == "".join(pieces)
    assert len(found.tokens) == 40 and found.stopped == "tokens" and found.prompt_tokens == 4
    assert len(set(found.tokens)) > 3, "a model that writes one token would pass anything"
    assert again.bytes_per_token < found.bytes_per_token / 2
    assert found.prefill_seconds > 0 < found.decode_seconds


def test_tokens_are_the_most_probable_ones(loaded):
    """Beside the whole text, read again for every token."""
    dense, _, words = loaded
    found = write(dense, words, "Once", tokens=10).tokens
    assert found == most_probable(dense, words.encode("Once"), 10)


def test_transformers_logs_nothing(loaded):
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())
    logging.Logger.warning_once.cache_clear()  # transformers says some things once
    logging.getLogger("transformers").addHandler(handler)
    try:
        write(loaded[0], loaded[2], "Once", tokens=2)
    finally:
        logging.getLogger("transformers").removeHandler(handler)
    assert messages == []


def test_tokens_are_drawn_by_their_seed(loaded):
    dense, _, words = loaded
    how = {"tokens": 24, "temperature": 1.0}
    state = torch.random.get_rng_state()
    first, again, other = (write(dense, words, "Once", seed=s, **how).tokens for s in (0, 0, 1))
    assert first == again != other
    assert torch.equal(torch.random.get_rng_state(), state)
    cold = write(dense, words, "Once", tokens=24, temperature=1e-4, seed=5)
    assert cold.tokens == write(dense, words, "Once", tokens=24).tokens


def test_a_text_ends_where_the_model_or_its_context_does(loaded):
    dense, _, words = loaded
    full = write(dense, words, "Once", tokens=1000)
    assert len(full.tokens) == CONTEXT - 4 and full.stopped == "context"
    third = full.tokens[2]
    stopping = Words(words.encode, words.decode, frozenset([third]))
    short = write(dense, stopping, "Once", tokens=1000)
    assert short.stopped == "end"
    assert short.tokens == full.tokens[: full.tokens.index(third) + 1]


def small_llama(**changes: int) -> Llama:
    torch.manual_seed(0)
    sizes = dict(dim=16, hidden=24, layers=1, heads=2, kv_heads=1, vocabulary=40, context=12)
    model = Llama(LlamaConfig(**sizes | changes)).eval()
    for parameter in model.blocks.parameters():
        parameter.data.mul_(40 if parameter.ndim > 1 else 1)
    return model


def test_models_that_are_not_of_transformers(loaded):
    model = small_llama()
    found = write(model, LETTERS, "ABC", tokens=6)
    assert found.tokens == most_probable(model, [1, 2, 3], 6) and found.stopped == "tokens"
    assert len(set(found.tokens)) > 2
    assert found.text == LETTERS.decode(found.tokens)
    drawn = [write(model, LETTERS, "ABC", temperature=1.5, tokens=8, seed=s) for s in (3, 3, 4)]
    assert drawn[0].tokens == drawn[1].tokens != drawn[2].tokens
    ending = Words(LETTERS.encode, LETTERS.decode, frozenset([found.tokens[0]]))
    assert write(model, ending, "ABC").tokens == found.tokens[:1]
    assert write(model, LETTERS, "ABC").stopped == "context"


def test_models_without_a_cache_read_the_whole_text_again():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.lengths = small_llama(), []

        def forward(self, tokens):
            self.lengths.append(tokens.shape[1])
            return self.inner(tokens)

    model = Plain()
    assert write(model, LETTERS, "ABC", tokens=6).tokens == most_probable(model.inner, [1, 2, 3], 6)
    assert model.lengths == [3, 4, 5, 6, 7, 8]


def test_documents(loaded):
    document = write(small_llama(), LETTERS, "ABC", tokens=1).document()
    assert document["schema"] == "signbook.generate/1"
    assert document["decode_tokens_per_second"] is None and document["decode_seconds"] == 0
    assert document["prefill_tokens_per_second"] == 3 / document["prefill_seconds"]
    assert document["resident_bytes"] > 50e6
    two = write(small_llama(), LETTERS, "ABC", tokens=2).document()
    assert two["decode_tokens_per_second"] == 1 / two["decode_seconds"]


@pytest.mark.parametrize(
    ("model", "prompt", "options", "message"),
    [
        (small_llama(), "", {}, "^--prompt must hold text, not nothing"),
        (
            small_llama(),
            "A" * 12,
            {},
            "^--prompt must leave room in the model's context of 12 tokens, not take 12",
        ),
        (
            small_llama(),
            "z",
            {},
            "^tokens of the prompt must be 0 to 39, which the model knows, not 58; give --token",
        ),
        (
            small_llama(),
            "A",
            {"temperature": float("nan")},
            "^--temperature must be 0 or above, and finite, not nan",
        ),
        (
            nn.Linear(4, 4),
            "A",
            {},
            r"^model must be a language model, which gives logits .* raises RuntimeError for \[1,",
        ),
        (nn.Embedding(9, 4), "AB", {"tokens": 0}, "^--prompt must leave room"),
        (
            nn.Sequential(nn.Embedding(9, 4), nn.Flatten()),
            "AB",
            {},
            r"^logits must be \[1, 2, vocabulary\], not \[1, 8\]",
        ),
    ],
)
def test_what_cannot_be_continued(model, prompt, options, message):
    with pytest.raises(ConfigError, match=message):
        write(model, LETTERS, prompt, **options)


def test_models_of_transformers_that_write_nothing(loaded):
    import transformers

    sizes = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=300)
    encoder = transformers.BertModel(transformers.BertConfig(intermediate_size=16, **sizes))
    with pytest.raises(ConfigError, match=r"^model must be a causal language model, .*not BertMod"):
        write(encoder, loaded[2], "Once")


def test_words_that_the_tokenizer_does_not_know():
    known = Words(lambda t: [0 if w == "?" else 1 for w in t.split()], lambda t: "w" * len(t))
    assert prompt_tokens(known, "a ?") == [1, 0]
    strict = Words(known.encode, known.decode, unknown=0)
    with pytest.raises(ConfigError, match=r"^--prompt must be made of .* it knows only 'w'; rew"):
        prompt_tokens(strict, "a ?")
