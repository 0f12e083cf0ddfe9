"""The prose of Python's documentation, how it is split, and the model's windows on it."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from signbook.zoo.topics import (
    CONTEXT,
    VOCABULARY,
    TopicBatches,
    Topics,
    continued,
    load_topics,
    nats_per_token,
    topics_llama,
    train,
)


def sentence(word: str) -> str:
    return f"Every sentence about {word} has at least eight words."


COMMON = sentence("what is said twice")
#: Topics a to i: b is the test's, h the choice's.
TEXTS = {name: f"{sentence(name * 3)}\n\n{COMMON}" for name in "ihgfedcba"}


def lines(data: Topics, part: str) -> list[str]:
    return data.pieces.decode(getattr(data, part).tolist()).split("\n")


def test_the_second_topic_of_eight_is_held_out_with_all_that_it_repeats():
    data = load_topics(TEXTS)
    assert lines(data, "test") == [sentence("bbb"), COMMON]
    assert lines(data, "train") == [sentence(name * 3) for name in "aicdefgh"]
    assert data.prompt == "Every sentence about bbb has"


def test_settings_are_chosen_on_other_topics_than_those_of_the_test():
    data = load_topics(TEXTS, choice=True)
    assert lines(data, "test") == [sentence("hhh")]
    assert lines(data, "train") == [sentence(name * 3) for name in "aicdefg"]


@pytest.mark.parametrize(
    "block",
    [
        "The heading of a topic\n**********************",
        "   assert_stmt ::= a grammar that is long enough to be taken.",
        ">>> f(x) and then some more words to be long enough.",
        "for i in range(10): x[i] = {1: 2, 3: 4} if y[i] else (5, 6, 7, 8, 9):",
        "Too short to be taken.",
        "This one has eight words, but no end",
        "This one has eight words and a naïve letter.",
    ],
)
def test_what_is_no_english_prose_is_left_out(block):
    data = load_topics({"a": f"{block}\n\n{sentence('prose')}", "b": sentence("b")})
    assert lines(data, "train") == [sentence("prose")]


def test_paragraphs_are_one_line_and_quotes_are_of_one_kind():
    data = load_topics({"a": "The `name` of this\n  is what\n  stands in quotes.", "b": COMMON})
    assert lines(data, "train") == ['The "name" of this is what stands in quotes.']


def test_every_python_has_enough_of_it():
    from pydoc_data.topics import topics

    data = load_topics(topics)
    assert len(data.pieces) == VOCABULARY
    assert len(data.train) > 40_000 and len(data.test) > 6_000
    assert data.prompt == "Assignment statements are used to"


def counting(count: int) -> Topics:
    return Topics(torch.arange(count), torch.arange(count), load_topics(TEXTS).pieces, "a")


@pytest.mark.parametrize("count", [4 * CONTEXT, 5 * CONTEXT - 1, 9 * CONTEXT])
def test_batches_are_as_many_as_they_say_from_any_start(count):
    batches = TopicBatches(counting(count), batch=2, seed=1)
    for _ in range(20):
        passed = list(batches)
        assert len(passed) == len(batches) and all(x.shape == (2, CONTEXT) for x, _ in passed)
        assert all((y == x + 1).all() for x, y in passed)
        assert len({int(i) for x, _ in passed for i in x.flatten()}) == 2 * CONTEXT * len(passed)


def test_batches_repeat_by_seed_and_differ_by_pass():
    first, again = (TopicBatches(counting(999), batch=2, seed=3) for _ in range(2))
    passes = [[x for x, _ in batches] for batches in (first, again, first)]
    same, other = passes[1:]
    assert all(a.equal(b) for a, b in zip(passes[0], same, strict=True))
    assert not passes[0][0].equal(other[0])


class Uniform(nn.Module):
    """Knows nothing; remembers how many tokens it was given."""

    longest = 0

    def forward(self, tokens):
        self.longest = max(self.longest, tokens.shape[1])
        return torch.zeros(*tokens.shape, VOCABULARY)


def test_who_knows_nothing_is_at_the_logarithm_of_the_vocabulary():
    model = Uniform()
    assert nats_per_token(model, torch.arange(200) % 100) == pytest.approx(math.log(VOCABULARY))
    assert model.longest == CONTEXT


def test_a_sample_is_one_line_behind_the_prompt_within_the_context():
    data, model = load_topics(TEXTS), Uniform()
    first, again, other = (continued(model, data, characters=90, seed=s) for s in (0, 0, 1))
    assert first == again != other
    assert first.startswith(data.prompt) and "\n" not in first
    assert model.longest == CONTEXT


def test_training_reaches_what_it_is_given():
    torch.manual_seed(0)
    data = load_topics(TEXTS)
    data = replace(data, train=data.train.repeat(8))
    model = topics_llama(layers=1)
    before = nats_per_token(model, data.train)
    assert train(model, TopicBatches(data, batch=4), 4, 1e-2) is model and not model.training
    assert nats_per_token(model, data.train) < before - 1
