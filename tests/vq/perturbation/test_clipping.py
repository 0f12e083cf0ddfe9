"""Ends of groups shrink by a sigmoid; without zeros there is one for both."""

import torch

import vq
from vq.perturbation.clipping import Clipping

CPU = torch.device("cpu")


def test_ends_shrink_by_a_sigmoid_each():
    g = vq.Int2(group=4, zeros=True).geometry("fc", "linear", (3, 10))
    clipping = Clipping(g, 4.0, 1e-2, CPU)
    assert clipping.gamma.shape == clipping.beta.shape == (3, 3)
    clipping.beta.data.fill_(0.0)
    low, high = clipping(-torch.ones(3, 3), 2 * torch.ones(3, 3))
    assert torch.equal(low, torch.full((3, 3), -0.5))
    torch.testing.assert_close(high, 2 * torch.sigmoid(torch.full((3, 3), 4.0)))


def test_without_zeros_both_ends_are_one():
    g = vq.Int8().geometry("fc", "linear", (3, 10))
    clipping = Clipping(g, 0.0, 1e-2, CPU)
    assert [tuple(p.shape) for p in clipping.parameters()] == [(3, 1)]
    low, high = clipping(-torch.ones(3, 1), torch.ones(3, 1))
    assert torch.equal(-low, high)
