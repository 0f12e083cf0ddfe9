"""Settings of scalar formats: what they store, and what they cost."""

import pytest

from vq import Int2, Int3, Int4, Int8
from vq.formats.scalar import Int4 as Home


@pytest.mark.parametrize(("kind", "bits"), [(Int2, 2), (Int3, 3), (Int4, 4)])
def test_groups(kind, bits):
    g = kind(group=5, zeros=True).geometry("a", "linear", (3, 12))
    assert (g.method, g.b, g.groups, g.group_width, g.scales) == (f"int{bits}", bits, 9, 5, 0)
    assert g.zeros and kind(group=100).geometry("a", "linear", (3, 12)).group_width == 12


def test_int8_has_a_scale_per_output():
    g = Int8().geometry("a", "linear", (3, 12))
    assert (g.scales, g.groups, g.group_width, g.is_packed) == (3, 0, 12, False)


def test_problems():
    assert Int8(tile_outputs=0).problems() == ["tile_outputs must be positive"]
    assert Int4(group=0, tile_outputs=-1).problems() == [
        "group must be positive, not 0",
        "tile_outputs must be positive, not -1",
    ]
    assert Int2().misfit("conv2d", (1, 1, 1, 1)) == [] and Home is Int4


def test_cost_grows_with_the_weights():
    small, large = ([Int4().geometry("a", "linear", (8, n))] for n in (8, 80))
    for kind in (Int4(), Int8()):
        assert 10 * kind.seconds(small, None) == pytest.approx(kind.seconds(large, None))
        assert 10 * kind.memory_bytes(small) == kind.memory_bytes(large)
    assert Int8().memory_bytes(small) < Int4().memory_bytes(small)
