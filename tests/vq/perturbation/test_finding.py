"""Which pairs are found in which kinds of blocks, and why others are not."""

import pytest
import torch

import vq
from tests.rescomp.models import bert, chain, gpt2, llama
from tests.rescomp.models import tokens as words
from tests.vq.perturbation import models
from tests.vq.perturbation.models import BLOCKS, LINEARS, pairs_of
from vq.perturbation.finding import PairResult, warn_of_pairs


def found(model, data, recipe):
    return [
        ({pair.name: pair for pair in pairs}, left)
        for _, pairs, left, _, _ in pairs_of(model, data, recipe)
    ]


def test_a_decoder_with_grouped_heads_has_all_pairs():
    for pairs, left in found(models.grouped(), models.tokens(), BLOCKS):
        assert [*pairs] == [
            "attn_norm -> attn.wq, attn.wk, attn.wv", "ffn_norm -> ffn.w1, ffn.w3",
            "attn.wv -> attn.wo", "attn.wq <-> attn.wk",
        ]  # fmt: skip
        assert left == []
        assert [pair.size for pair in pairs.values()] == [32, 32, 16, 8]
        assert not any(pair.shifts for pair in pairs.values())


def test_norms_with_biases_are_shifted():
    for pairs, left in found(models.before(), models.rows(), LINEARS):
        assert [*pairs] == [
            "norm1 -> attn.qkv", "norm2 -> fc1", "attn.qkv -> attn.proj", "attn.qkv <-> attn.qkv",
        ]  # fmt: skip
        assert [pair.shifts for pair in pairs.values()] == [True, True, False, False]
        assert [pair.size for pair in pairs.values()] == [32] * 4 and not left


def test_norms_that_the_residual_reads_are_left_out():
    for pairs, left in found(models.behind(), models.rows(), LINEARS):
        assert [*pairs] == ["attn.qkv -> attn.proj", "attn.qkv <-> attn.qkv"]
        assert [(one.name, one.reason) for one in left] == [
            ("norm1 -> fc1", "no form of it keeps what the block gives")
        ]


@pytest.mark.parametrize(
    ("build", "layers", "pairs", "missing"),
    [
        (llama, ["*_proj"], 4, 0),
        (bert, ["encoder.*.query", "encoder.*.key", "encoder.*.value", "encoder.*.dense"], 2, 1),
        (gpt2, ["*.c_attn", "*.c_proj", "*.c_fc"], 4, 0),
    ],
)
def test_models_of_transformers(build, layers, pairs, missing):
    pytest.importorskip("transformers")
    blocks = found(build(), words(2), vq.Recipe(dict.fromkeys(layers, vq.Int4(group=8))))
    assert len(blocks) in (2, 3)
    assert all((len(have), len(left)) == (pairs, missing) for have, left in blocks)


def test_layers_that_stay_take_their_pairs_with_them():
    model = models.before()
    recipe = vq.Recipe({"*": vq.Int4(group=16), "*.fc1": None, "1.attn.proj": None})
    first, second = found(model, models.rows(), recipe)
    assert [*first[0]] == ["norm1 -> attn.qkv", "attn.qkv -> attn.proj", "attn.qkv <-> attn.qkv"]
    reason = "layer '0.fc1' is not quantised with the block"
    assert first[1] == [PairResult("0", "norm2 -> fc1", reason=reason)]
    assert [one.name for one in second[1]] == ["norm2 -> fc1", "attn.qkv -> attn.proj"]


def test_layers_that_share_a_weight_take_their_pairs_with_them():
    model = models.before()
    model[1].fc1.weight = model[0].fc1.weight
    ((pairs, left),) = found(model, models.rows(), LINEARS)  # they are no chain any more
    assert len(pairs) == 6
    assert [(one.name, one.reason) for one in left] == [
        ("0.norm2 -> 0.fc1", "layer '0.fc1' shares its weight"),
        ("1.norm2 -> 1.fc1", "layer '1.fc1' is not quantised with the block"),
    ]


def test_blocks_without_any_are_named():
    blocks = found(chain(), [torch.randn(4, 12)], LINEARS)
    assert all(pairs == {} and left[0].name == "any pair" for pairs, left in blocks)


def test_finding_changes_nothing():
    model, data = models.before(), models.rows()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    list(pairs_of(model, data, LINEARS))
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert type(model[0].norm1) is torch.nn.LayerNorm


def test_ranges_are_those_of_all_batches():
    data = models.rows()
    stage, pairs, _, _, finder = next(iter(pairs_of(models.before(), data, LINEARS)))
    ranges = finder.ranges(stage, pairs)
    assert sorted(ranges) == ["0.attn.proj", "0.attn.qkv", "0.fc1"]
    normed = models.before()[0].norm1(torch.cat(data)).flatten(0, 1)
    assert torch.allclose(ranges["0.attn.qkv"].low, normed.amin(0))
    assert torch.allclose(ranges["0.attn.qkv"].high, normed.amax(0))


def test_what_is_left_out_is_named_once():
    with pytest.warns(UserWarning) as warned:
        warn_of_pairs(
            [PairResult("a", "x -> y", 4)]
            + [PairResult(block, "n -> y", reason="it is not") for block in "abc"]
            + [PairResult("c", "q <-> k", reason="no")]
        )
    assert str(warned[0].message) == (
        "equalisation left out what is not exact:\n- n -> y, in 'a' and 2 more: it is not\n"
        "- q <-> k, in 'c': no"
    )
    warn_of_pairs([PairResult("a", "x -> y", 4)])
