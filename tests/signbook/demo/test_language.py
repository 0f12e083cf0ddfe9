"""The demo's second act, on a few topics: equal bits, equal batches, signs that stay."""

import copy

import pytest
import torch

import vq
from signbook.demo import language as module
from signbook.demo.language import ARMS, Sizes, run_language, train_arm, train_fp32
from signbook.zoo.topics import TopicBatches, topics_llama

TINY = Sizes(topics=8, layers=1, first_epochs=1, second_epochs=2, characters=20)


@pytest.fixture(scope="module")
def language():
    return run_language(TINY, seed=3)


def test_controls_never_get_fewer_bits():
    def bits(name: str) -> float:
        return vq.plan(topics_llama(), vq.Recipe({"blocks.*": ARMS[name].method})).bits_per_weight

    assert 1.5 < bits("ssvq") == bits("fixed_signs") <= bits("vq") < 1.01 * bits("ssvq")


def test_every_arm_has_a_loss_and_a_sample(language):
    document, arms = language.document, {"fp32", *ARMS}
    assert set(document) == arms | {"bits_per_weight", "prompt", "samples"}
    assert all(4 < document[arm] < 7 for arm in arms)
    assert set(document["bits_per_weight"]) == set(ARMS) == set(language.training)
    assert set(document["samples"]) == arms
    for sample in document["samples"].values():
        assert sample.startswith(document["prompt"])
        assert len(sample) < len(document["prompt"]) + 40


def test_the_arms_differ_by_what_they_train(language):
    losses = [language.document[arm] for arm in ARMS]
    assert len(set(losses)) == len(losses)
    assert language.training["fixed_signs"].signs[-1].changed == 0
    assert language.training["ssvq"].signs[-1].changed > 0
    assert not language.training["vq"].signs


def test_equal_seeds_give_equal_figures(language):
    assert run_language(TINY, seed=3).document == language.document


def test_training_on_leaves_the_start_as_it_was_and_goes_as_far_as_the_arms(monkeypatch):
    data, passes = TINY.load(), []
    start = train_fp32(data, TINY, seed=0)
    before = copy.deepcopy(start.state_dict())

    class Batches(TopicBatches):
        def __iter__(self):
            for tokens, following in super().__iter__():
                passes.append(tokens)
                yield tokens, following

    monkeypatch.setattr(module, "TopicBatches", Batches)
    train_fp32(data, TINY, seed=0, start=start)
    assert all(torch.equal(before[name], now) for name, now in start.state_dict().items())
    fp32 = passes.copy()
    passes.clear()
    train_arm(start, ARMS["ssvq"], data, TINY, seed=0)
    assert len(passes) == len(fp32) > 0
    assert all(a.equal(b) for a, b in zip(passes, fp32, strict=True))
