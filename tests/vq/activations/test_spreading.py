"""Rotations spread outliers and stay rotations; channels are dealt out; smoothing is bounded."""

import pytest
import torch

from vq.activations.spreading import block_of, greedy_rotation, smoothing, spreading, zigzag
from vq.calibration.peaks import Peaks
from vq.errors import ConfigError


def outliers(tokens=16, inputs=32):
    torch.manual_seed(0)
    rows = torch.randn(tokens, inputs)
    rows[:, 5] *= 50
    rows[3, 17] = -80
    return rows


def test_a_greedy_rotation_is_orthogonal_and_keeps_its_best_steps():
    rows, draw = outliers().double(), torch.Generator().manual_seed(0)
    turn, reached = greedy_rotation(rows, 8, 20, draw)
    torch.testing.assert_close(turn @ turn.T, torch.eye(8).double(), rtol=0, atol=1e-12)
    turned = rows.reshape(-1, 8) @ turn
    assert reached == pytest.approx(float(turned.max() - turned.min()))
    assert reached < 0.6 * float(rows.max() - rows.min())
    ranges = [greedy_rotation(rows, 8, n, draw.manual_seed(0))[1] for n in range(6)]
    assert ranges[0] == float(rows.max() - rows.min())
    assert ranges == sorted(ranges, reverse=True), "what does not help is not kept"


def test_the_first_step_spreads_the_largest_channel_evenly():
    rows = torch.zeros(1, 16).double()
    rows[0, 11] = 4
    turn, reached = greedy_rotation(rows, 16, 1, torch.Generator().manual_seed(0))
    assert torch.allclose((rows @ turn).abs(), torch.ones(1, 16).double()) and reached < 1e-9


def test_channels_are_dealt_to_and_fro():
    peaks = torch.arange(12.0, 0, -1)
    assert zigzag(peaks, 3).tolist() == [0, 7, 8, 1, 6, 9, 2, 5, 10, 3, 4, 11]
    sums = peaks[zigzag(peaks, 4).long()].reshape(3, 4).sum(1)
    assert float(sums.max() - sums.min()) <= 2
    assert sorted(zigzag(torch.randn(24), 8).tolist()) == list(range(24))


def test_smoothing_leaves_dead_channels_and_is_positive():
    x, w = torch.tensor([4.0, 0, 9, 1e-30]), torch.tensor([1.0, 2, 0, 1e6])
    assert smoothing(x, w, 0.5).tolist() == [2, 1, 1, 1e-5]
    assert smoothing(x[:1], torch.tensor([2.0]), 1.0).tolist() == [4]


@pytest.mark.parametrize("block", [8, 32])
def test_spreading_lowers_the_largest_input(block):
    rows = outliers()
    peaks = Peaks(rows.abs().amax(0), rows)
    part = spreading(
        peaks, torch.ones(32), alpha=0.5, block=block, steps=20,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert float(part.apply(rows).abs().max()) < 0.5 * float((rows / part.scale).abs().max())
    assert ("second" in part.tensors) == (block < 32)
    assert part.first.shape == (1, block, block)


def test_blocks_are_powers_of_two_that_divide():
    assert [block_of(n, 128) for n in (4096, 576, 172, 43, 64)] == [128, 64, 4, 1, 64]
    assert block_of(4096, 16) == 16
    for wrong in (0, 1, 24):
        with pytest.raises(
            ConfigError, match=f"block must be a power of two, 2 or more, not {wrong}"
        ):
            block_of(64, wrong)
