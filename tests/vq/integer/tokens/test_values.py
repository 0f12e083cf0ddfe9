"""Labels say where numbers came from, however they were moved."""

import pytest
import torch

from vq.integer.tokens.values import Draft, Value, channels_of, collected, rotation_of


@pytest.fixture
def source():
    return Draft("x", "linear", [], (8,), 5, True)


def whole(source):
    return Value(source, [(1.0, source.labels(2))], 0)


def heads(source):
    move = lambda t: t.view(2, 5, 2, 4).transpose(1, 2)  # noqa: E731
    return whole(source).moved(move, 1)[0]


def test_a_call_moves_labels_coefficients_and_constants(source):
    value = whole(source).plus(torch.arange(8.0), 1).times(torch.arange(5.0)[:, None], 2)
    (part,) = value.moved(lambda t: t[:, 1:3, ::2], 3)
    assert part.shape == (2, 2, 4) and part.at == 3
    (c, labels), constant = part.terms[0], part.constant
    assert torch.equal(labels, source.labels(2)[:, 1:3, ::2])
    assert c[0, :, 0].tolist() == [1, 2] and constant[0, 1].tolist() == [0, 4, 8, 12]


def test_factors_that_are_all_the_same_are_one_number(source):
    value = whole(source).times(torch.full((8,), 0.5), 1).times(3.0, 2)
    assert value.plain and value.terms[0][0] == 1.5
    assert not value.times(torch.arange(8.0), 3).plain


def test_equal_elements_add_up(source):
    value = whole(source)
    assert value.joined(value.times(2.0, 1), 2).terms[0][0] == 3.0


def test_rows_and_channels_follow_from_labels(source):
    row, channel = channels_of(source.labels(2)[:, 1:2, 3:], source, 2)
    assert row.unique().tolist() == [1] and channel[0, 0].tolist() == [3, 4, 5, 6, 7]
    assert channels_of(source.labels(2).flip(0), source, 2) is None


@pytest.mark.parametrize("pairs", ["adjacent", "halves"])
def test_a_rotation_is_known_however_it_is_written(source, pairs):
    x = heads(source)
    angle = torch.arange(5)[:, None] * torch.tensor([1.0, 0.3]).double()
    cos, sin = angle.cos(), angle.sin()
    if pairs == "adjacent":
        even, odd = (x.moved(lambda t, i=i: t[..., i::2], 1)[0] for i in (0, 1))
        parts = [
            even.times(cos, 2).joined(odd.times(-sin, 2), 3),
            even.times(sin, 2).joined(odd.times(cos, 2), 3),
        ]
        turned = collected(parts, lambda some: torch.stack(some, -1).flatten(-2), 4)
    else:
        first, second = (x.moved(lambda t, i=i: t[..., i : i + 2], 1)[0] for i in (0, 2))
        other = collected([second.times(-1.0, 2), first], lambda some: torch.cat(some, -1), 3)
        twice = [one.repeat(1, 2) for one in (cos, sin)]
        turned = x.times(twice[0], 4).joined(other.times(twice[1], 4), 5)
    found = rotation_of(turned, 2)
    assert found is not None and (found.pairs, found.start) == (pairs, 0)
    assert torch.allclose(found.cosine, cos) and torch.allclose(found.sine, sin)


def test_what_is_no_rotation_is_none(source):
    x = heads(source)
    other = x.moved(lambda t: t.flip(-1), 1)[0]
    assert rotation_of(x, 2) is None
    some = x.times(torch.rand(4), 1).joined(other.times(torch.rand(4), 1), 2)
    assert rotation_of(some, 2) is None


def test_parts_of_different_values_do_not_come_together(source):
    other = Draft("y", "linear", [], (8,), 5, True)
    assert collected([whole(source), whole(other)], lambda some: torch.cat(some, -1), 1) is None
    found = collected([torch.ones(2, 1, 8), whole(source)], lambda some: torch.cat(some, 1), 1)
    assert found.terms[0][1][0, 0].unique().tolist() == [-1]
    assert found.constant[:, 0].unique().tolist() == [1]
