"""Grids whose ranges are searched for."""

import pytest
import torch

from vq import Int3, Int4, Int8
from vq.errors import ConfigError
from vq.formats.clip import Clip, fit_grid, part_of
from vq.formats.grids import levels_of, range_grid, spread

KINDS = [Int4(group=8), Int3(group=5, zeros=True), Int8()]


def errors(matrix, g, grid, power):
    """Sum of powers of the errors in every group."""
    low, high = levels_of(g, None if grid.zero is None else spread(grid.zero, g))
    scale = spread(grid.scale, g)
    gap = ((matrix / scale).round().clamp(low, high) * scale - matrix).abs() ** power
    padded = torch.nn.functional.pad(gap, (0, -g.I % g.group_width))
    return padded.reshape(g.O, -1, g.group_width).sum(2)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_no_group_is_worse_than_with_its_whole_range(kind):
    matrix = torch.randn(6, 16, generator=torch.Generator().manual_seed(0)) ** 3
    g, clip = kind.geometry("a", "linear", (6, 16)), Clip(steps=20, power=2.0)
    whole, found = range_grid(matrix, g), fit_grid(matrix, g, clip)
    before, after = (errors(matrix, g, grid, 2.0) for grid in (whole, found))
    assert bool((after <= before * (1 + 1e-4)).all())
    assert not g.group or bool((after < 0.99 * before).any())  # 255 levels lose little
    assert torch.equal(fit_grid(matrix, g).scale, whole.scale)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_part_of_a_layer_is_alike(kind):
    g = part_of(kind.geometry("a", "conv2d", (6, 4, 2, 2)), (3, 10), 5)
    assert (g.shape, g.op, g.method) == ((3, 10), "linear", kind.name)
    assert (g.scales, g.group) == ((0, 5) if kind.name != "int8" else (3, 0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shrink": 1.0}, r"^clip shrink must be in \(0, 1\), not 1.0$"),
        ({"steps": 0}, "^clip steps must be positive, not 0$"),
        ({"power": float("inf")}, "^clip power must be positive, not inf$"),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        Clip(**settings)
