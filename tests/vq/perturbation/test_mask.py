"""Bands are nested, corners are squares, and a control has as many entries."""

from itertools import pairwise

import pytest
import torch

from vq.errors import ConfigError
from vq.perturbation.mask import Mask


def test_bands_are_nested_and_count_as_derived():
    r = 9
    bands = [Mask(width=w).entries(r) for w in range(r)]
    assert torch.equal(bands[0], torch.eye(r).bool()) and bool(bands[-1].all())
    for w, (inner, outer) in enumerate(pairwise(bands)):
        assert bool((outer | ~inner).all()) and int(inner.sum()) == (2 * w + 1) * r - w * (w + 1)


def test_a_corner_is_added_to_the_band():
    free = Mask(width=0, corner=3).entries(5)
    assert bool(free[:3, :3].all()) and int(free.sum()) == 9 + 2


def test_a_control_has_as_many_entries_by_its_seed():
    band, drawn = Mask(4).entries(12), Mask(4, random=1).entries(12)
    assert int(band.sum()) == int(drawn.sum()) and not torch.equal(band, drawn)
    assert torch.equal(drawn, Mask(4, random=1).entries(12))
    assert not torch.equal(drawn, Mask(4, random=2).entries(12))


def test_what_is_wider_than_the_rank_is_said():
    assert Mask(width=7, corner=8).problems(8) == []
    assert Mask(width=8, corner=9).problems(8) == [
        "width must be below its rank, 8, not 8",
        "corner must be at most its rank, 8, not 9",
    ]
    with pytest.raises(ConfigError, match=r"2 problems:\n- width must not be negative, not -1\n-"):
        Mask(width=-1, corner=-2)
