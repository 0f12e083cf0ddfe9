"""Rounding that gradients do not see, and what a step of a codebook is worth."""

import torch

from vq.formats.integers import book_step, codebook_step, half_through, round_through


def test_rounding_is_exact_bounded_and_transparent():
    x = torch.tensor([-200.0, -1.5, 0.4, 126.6, 1e9], requires_grad=True)
    rounded = round_through(x)
    assert rounded.tolist() == [-127, -2, 0, 127, 127]
    (grad,) = torch.autograd.grad(rounded.sum(), x)
    assert torch.equal(grad, torch.ones(5))
    assert round_through(x, torch.zeros(5), torch.tensor([1.0, 1, 1, 9, 9])).tolist() == [
        0,
        0,
        0,
        9,
        9,
    ]


def test_rounding_to_fp16_is_exact_and_transparent():
    x = torch.tensor([1.0, 0.1, 2.0**-24, 1.4 * 2.0**-24, 70000.0], requires_grad=True)
    rounded = half_through(x)
    assert torch.equal(rounded, x.detach().half().float())
    (grad,) = torch.autograd.grad((rounded * torch.arange(5.0)).sum(), x)
    assert torch.equal(grad, torch.arange(5.0))


def test_steps():
    assert codebook_step(torch.tensor([[1.0, -254.0]])) == 2
    assert codebook_step(torch.zeros(2, 2)) == 1
    book = torch.tensor([[3.0, 4.0], [0.0, 5.0]])
    assert (book * book_step(book)).square().mean() == 1
