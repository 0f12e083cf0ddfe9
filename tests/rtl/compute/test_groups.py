"""Layers whose groups of inputs have scales of their own, through the engine, against numpy."""

from dataclasses import replace

import numpy as np
import pytest

from rtl.compute.config import ArrayConfig
from rtl.compute.groups import scale_tiles
from tests.rtl.compute.layers import CONFIG, Layer, R, check
from tests.rtl.compute.windows import CASES, SCALE_GROUPS, Conv
from vq.errors import ConfigError

ROUNDS = R // CONFIG.scale_lanes


def scaled(name, group, seed):
    return Layer(replace(CASES[name], scale_group=group), seed)


def test_the_outputs_of_these_tests_are_spread():
    """Neither saturated nor all zero, or nothing would be tested."""
    for seed, (name, group) in enumerate(SCALE_GROUPS):
        layer = scaled(name, group, seed)
        words = np.concatenate([np.asarray(word) for word in layer.words()])
        assert len(np.unique(words)) > min(8, len(words) // 8)
        assert (np.abs(words) == 127).mean() < 0.2


@pytest.mark.parametrize(("name", "group"), SCALE_GROUPS)
def test_layers(name, group):
    """Every other one with neighbours that are not always ready."""
    check([scaled(name, group, group)], 0.3 * (SCALE_GROUPS.index((name, group)) % 2))


@pytest.mark.parametrize(("seed", "idle"), [(0, 0.0), (1, 0.2), (2, 0.2)])
def test_layers_with_and_without_groups_follow_one_another(seed, idle):
    check(
        [
            scaled("ragged linear", 8, seed),
            Layer(CASES["ragged linear"], seed + 1),
            scaled("rows of a linear", 16, seed + 2),
            scaled("linear", 8, seed + 3),
            Layer(CASES["dilated"], seed + 4),
            Layer(CASES["linear"], seed + 5, 8),
            scaled("depthwise", 8, seed + 6),
            Layer(CASES["uneven channels"], seed + 7),
        ],
        idle,
        seed,
    )


def test_totals_of_groups_stay_ahead_of_the_next_layer():
    """Its first sums are done while the last ones of groups are still in the rescaler."""
    one_tile = Conv(8, 8, size=(5, 1))
    for idle in (0, 0.3):
        check([scaled("rows of a linear", 16, 0), Layer(one_tile, 1), Layer(one_tile, 2)], idle)


def test_scales_come_late():
    check([scaled("linear", 8, 0), scaled("rows of a linear", 8, 1)], 0, scales_idle=0.97)


@pytest.mark.parametrize("seed", range(6))
def test_random_linears(seed):
    rng = np.random.default_rng(seed)
    layers = []
    for number in range(4):
        inputs, outputs, rows = (int(n) for n in rng.integers(1, (60, 30, 12)))
        conv = Conv(inputs, outputs, size=(rows, 1))
        if rng.random() < 0.8:
            conv = replace(conv, scale_group=int(rng.choice([8, 16, 24, inputs])))
        layers.append(Layer(conv, 10 * seed + number))
    check(layers, float(rng.choice([0, 0.1, 0.4])), seed)


@pytest.mark.parametrize("group", [16, 64])
def test_one_position_waits_for_nobody(group):
    """Two tiles take the cycles of one sum in the rescaler."""
    counts = check([Layer(Conv(512, 16, scale_group=group), 0)], 0)
    assert counts["busy"] == 128
    assert counts["blocked"] == 0
    assert sum(counts.values()) <= 128 + 16


def test_one_position_and_a_tile_for_each_group():
    counts = check([Layer(Conv(256, 16, scale_group=8), 0)], 0)
    assert counts["busy"] == 64
    assert 64 * ROUNDS <= sum(counts.values()) <= 64 * ROUNDS + 16


def test_many_positions_wait_at_the_end_of_groups_only():
    counts = check([Layer(Conv(64, 8, size=(8, 8), scale_group=32), 0)], 0)
    assert counts["busy"] == 8 * 64
    wanted = (6 + 2 * ROUNDS) * 64
    assert wanted - ROUNDS <= sum(counts.values()) <= wanted + 20


def test_layers_without_groups_do_not_slow_down():
    """One position: no wait at all. Many: the requantiser's rate in the last tile."""
    counts = check([Layer(Conv(64, 64), 0)], 0)
    assert counts["busy"] == 64 and counts["blocked"] == 0
    assert sum(counts.values()) <= 64 + 16
    counts = check([Layer(Conv(64, 8, size=(8, 8)), 0)], 0)
    wanted = (7 + ROUNDS) * 64
    assert wanted - ROUNDS <= sum(counts.values()) <= wanted + 16


@pytest.mark.parametrize(
    ("inputs", "group", "tiles"),
    [(100, 0, 0), (100, 32, 1), (100, 96, 3), (100, 100, 4), (100, 130, 4), (27, 30, 1), (1, 1, 1)],
)
def test_tiles_of_groups(inputs, group, tiles):
    assert scale_tiles(ArrayConfig(columns=32), "fc", inputs=inputs, group=group) == tiles


@pytest.mark.parametrize(
    ("inputs", "group", "message"),
    [
        (100, 16, "'fc' .*group must be a multiple of columns = 32, or at least all 100 .* not 16"),
        (100, 48, "not 48"),
        (100, -32, "not -32"),
        (0, 32, "inputs must be at least 1, not 0"),
        (2**40, 2**39, "group must be less than 2\\*\\*24 tiles of 32 inputs, not 17179869184"),
    ],
)
def test_impossible_groups(inputs, group, message):
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        scale_tiles(ArrayConfig(columns=32), "fc", inputs=inputs, group=group)


def test_all_problems_at_once():
    with pytest.raises(ConfigError, match="2 problems"):
        scale_tiles(ArrayConfig(columns=32), "fc", inputs=2**40, group=2**39 + 1)
