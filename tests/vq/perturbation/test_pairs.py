"""Which channels share a scale, by hand: heads that share keys, and what turns together."""

import pytest
import torch
from torch import nn

from vq.perturbation.pairs import Heard, Part, proposals


def attention(q=8, k=4, names=("q_proj", "k_proj", "v_proj", "o_proj"), **told):
    module = nn.Module()
    for name, outputs in zip(names, (q, k, k, 6), strict=True):
        module.add_module(name, nn.Linear(q if outputs == 6 else 6, outputs))
    for name, value in told.items():
        setattr(module, name, value)
    model = nn.Module()
    model.block = nn.Module()
    model.block.attn = module
    heard = Heard(tuple(f"block.attn.{name}" for name in names), {})
    return proposals(heard, dict(model.named_modules()), "block")


def at(form):
    return [part.at.tolist() for part in form.parts]


def test_heads_that_share_keys_share_scales():
    values, products = attention(head_dim=2)
    assert values.name == "attn.v_proj -> attn.o_proj"
    assert products.name == "attn.q_proj <-> attn.k_proj"
    (form,) = values.forms
    # Query heads 0 and 1 read value head 0, 2 and 3 read 1.
    assert at(form) == [[0, 1, 2, 3], [0, 1, 0, 1, 2, 3, 2, 3]]
    assert [part.inputs for part in form.parts] == [False, True]
    assert [part.grows for part in form.parts] == [False, True]
    single, halves, *_ = products.forms
    assert at(single) == [[0, 1, 0, 1, 2, 3, 2, 3], [0, 1, 2, 3]]
    assert at(halves) == [[0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1]]


def test_halves_or_neighbours_turn_together():
    _, products = attention(q=8, k=8, head_dim=4)
    assert [at(form)[1] for form in products.forms] == [
        [0, 1, 2, 3, 4, 5, 6, 7],
        [0, 1, 0, 1, 2, 3, 2, 3],
        [0, 0, 1, 1, 2, 2, 3, 3],
    ]


def test_sizes_of_heads_that_nothing_tells_are_all_tried():
    values, _ = attention()
    assert [at(form)[1] for form in values.forms] == [
        [0, 0, 1, 1, 2, 2, 3, 3],
        [0, 1, 0, 1, 2, 3, 2, 3],
        [0, 1, 2, 3, 0, 1, 2, 3],
    ]
    values, products = attention(q=6, k=4)  # no head of 4 rows fits 6 columns
    assert values.forms == products.forms == []


@pytest.mark.parametrize("names", [("query", "key", "value", "dense"), ("wq", "wk", "wv", "wo")])
def test_projections_have_other_names_too(names):
    assert attention(q=4, k=4, names=names)[0].name == f"attn.{names[2]} -> attn.{names[3]}"


def test_parts_scale_what_has_a_place():
    part = Part("fc", inputs=True, grows=True, at=torch.tensor([1, -1, 0]))
    given = torch.ones(2, 3), torch.tensor([2.0, 5.0])
    assert part.scaled(*given).tolist() == [[5, 1, 2]] * 2
    part = Part("fc", inputs=False, grows=False, at=torch.tensor([1, -1, 0]))
    assert part.scaled(torch.ones(3), given[1]).tolist() == pytest.approx([0.2, 1, 0.5])
