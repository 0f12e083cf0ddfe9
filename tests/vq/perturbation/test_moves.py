"""Moves start as the identity, and give what the product written out gives, gradients too."""

import math

import pytest
import torch

from vq.perturbation.mask import Mask
from vq.perturbation.moves import FreeMove, SingularMove, steady_rate


def dense(matrix, mask, values):
    """``W + U D V'`` by the definition."""
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    d = torch.zeros(len(v), len(v)).index_put(tuple(mask.nonzero().T), values)
    return matrix + u @ d @ v


@pytest.mark.parametrize(
    "mask", [Mask(0), Mask(3), Mask(0, 5), Mask(2, 40), Mask(20, random=0)], ids=str
)
@pytest.mark.parametrize("shape", [(130, 70), (70, 130)])
def test_a_move_is_the_product_written_out(mask, shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    move = SingularMove(matrix, mask, 1.0)
    assert torch.equal(move(matrix), matrix), "D = 0 is exact"
    values = torch.randn_like(move.values)
    move.values.data = values
    wanted = dense(matrix, mask.entries(70), by_hand := values.clone().requires_grad_())
    torch.testing.assert_close(move(matrix), wanted, rtol=1e-4, atol=1e-4)
    weights = torch.randn(shape)
    (move(matrix) * weights).sum().backward()
    (wanted * weights).sum().backward()
    torch.testing.assert_close(move.values.grad, by_hand.grad, rtol=1e-3, atol=1e-3)


def test_a_corner_needs_its_directions_only():
    move = SingularMove(torch.randn(20, 30), Mask(0, 4), 1.0)
    assert move.u.shape == (20, 20)  # the diagonal needs all
    alone = SingularMove(torch.randn(20, 30), Mask(0, random=3), 1.0)
    assert alone.values.numel() == 20


def test_a_move_of_width_0_moves_singular_values_alone():
    torch.manual_seed(0)
    matrix = torch.randn(6, 9)
    move = SingularMove(matrix, Mask(0), 1.0)
    move.values.data = torch.linspace(0.1, 0.6, 6)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    torch.testing.assert_close(move(matrix), u @ torch.diag(s + move.values) @ v)


def test_vectors_are_no_state_that_is_copied():
    assert set(SingularMove(torch.randn(4, 4), Mask(), 1.0).state_dict()) == {"values"}


def test_free_moves_reach_what_any_other_does():
    matrix = torch.randn(5, 7)
    move = FreeMove(matrix, 1.0)
    assert torch.equal(move(matrix), matrix)
    move.values.data += 1
    assert torch.equal(move(matrix), matrix + 1)


def test_a_step_moves_weights_by_a_share_of_the_grid():
    torch.manual_seed(0)
    matrix = torch.randn(64, 96)
    for mask in (Mask(0), Mask(16)):
        count = int(mask.entries(64).sum())
        rate = steady_rate(0.01, 0.5, matrix.numel(), count)
        move = SingularMove(matrix, mask, rate)
        move.values.data.fill_(rate)
        step = float((move(matrix) - matrix).detach().square().mean().sqrt())
        assert step == pytest.approx(0.01 * 0.5, rel=1e-3)
    assert steady_rate(0.01, 0.5, 100, 25) == 0.01 * 0.5 * math.sqrt(4)
