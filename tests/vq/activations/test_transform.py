"""A transform is undone by the weights that carry it, and stands before everything else."""

import copy

import pytest
import torch
from torch import nn

from tests.vq.activations.models import transform
from vq.activations.runtime import attach
from vq.activations.tokens import ActivationQuantizer, round_tokens
from vq.activations.transform import Transform
from vq.calibration.rotation import orthogonal


def written_out(part):
    """R [I, I] with ``x' = x @ R``, as a product of whole matrices."""
    inputs = len(part.order)

    def whole(blocks):
        count = inputs // blocks.shape[-1]
        return torch.block_diag(*(blocks if len(blocks) == count else blocks.repeat(count, 1, 1)))

    gather = torch.zeros(inputs, inputs, dtype=torch.float64)
    gather[part.order, torch.arange(inputs)] = 1
    scale = torch.diag(1 / part.scale.double())
    return scale @ whole(part.first.double()) @ gather @ whole(part.second.double())


def test_a_transform_is_the_product_written_out_and_its_weights_undo_it():
    part, matrix = transform(24, 8, dtype=torch.float64), written_out(transform(24, 8))
    x, weight = torch.randn(2, 5, 24).double(), torch.randn(7, 24).double()
    torch.testing.assert_close(part.apply(x), x @ matrix, rtol=1e-6, atol=1e-6)
    error = part.apply(x) @ part.carried(weight).T - x @ weight.T
    assert float(error.abs().max()) < 1e-10


@pytest.mark.parametrize("fields", [{}, {"order": torch.arange(8).flip(0).int()}])
def test_parts_of_it_may_be_absent(fields):
    turn = orthogonal(4, torch.Generator().manual_seed(0))[None]
    part, x = Transform(turn, **fields), torch.randn(3, 8).double()
    error = part.apply(x) @ part.carried(torch.eye(8)).T - x
    assert float(error.abs().max()) < 1e-12
    assert set(part.tensors) == {"first", *fields}


def test_inputs_keep_their_dtype():
    x = torch.randn(4, 16).bfloat16()
    found = transform(16, 4).apply(x)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, transform(16, 4).apply(x.float()).bfloat16())


def test_transforms_come_before_rounding_whatever_was_first():
    torch.manual_seed(0)
    model, part, x = nn.Sequential(nn.Linear(16, 4)), transform(16, 4), torch.randn(5, 16)
    want = model[0](round_tokens(part.apply(x), 4))
    for first in (True, False):
        own = copy.deepcopy(model)
        if first:
            attach(own, part, ["0"])
        ActivationQuantizer(own, ["0"], 4)
        if not first:
            attach(own, part, ["0"])
        assert torch.equal(own(x), want)
        assert torch.equal(own[0](input=x), want), "by name, too"
