"""Rows that a layer's matrix multiplies to its outputs."""

import pytest
import torch
from torch import nn

from vq.calibration.inputs import geometry_key, parts_of, rows_of
from vq.layers import matrix_of


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Linear(6, 4), (2, 3, 6)),
        (nn.Conv1d(6, 4, 3, stride=2, padding=1), (2, 6, 9)),
        (nn.Conv1d(6, 4, 3, dilation=2, groups=2, padding="same"), (6, 9)),  # no batch
        (nn.Conv2d(6, 4, (3, 2), stride=(1, 2), padding=(2, 1)), (2, 6, 7, 8)),
        (nn.Conv2d(6, 12, 3, dilation=2, groups=3, padding="same"), (2, 6, 7, 8)),
        (nn.Conv2d(6, 6, 3, groups=6, padding=1, padding_mode="reflect"), (2, 6, 7, 8)),
        (nn.Conv2d(6, 4, 3, padding=2, padding_mode="circular"), (2, 6, 7, 8)),
    ],
    ids=str,
)
@torch.no_grad()
def test_rows_times_the_matrix_are_the_outputs(module, shape):
    torch.manual_seed(0)
    x = torch.randn(shape)
    rows = rows_of(module, x)
    op = type(module).__name__.lower()
    matrices = matrix_of(module.weight, op, "in").chunk(parts_of(module))
    assert len(rows) == len(matrices)
    found = torch.cat([part @ m.T for part, m in zip(rows, matrices, strict=True)], dim=1)
    want = module(x)
    if op != "linear":  # channels last
        want = want.reshape(-1, *want.shape[-(module.weight.ndim - 1) :]).movedim(1, -1)
    torch.testing.assert_close(found + module.bias, want.reshape(found.shape), rtol=1e-4, atol=1e-5)


def test_masked_tokens_are_left_out_where_the_mask_fits():
    mask = torch.tensor([[True, True, False], [True, False, False]])
    linear, x = nn.Linear(4, 2), torch.arange(24.0).reshape(2, 3, 4)
    (rows,) = rows_of(linear, x, mask)
    assert torch.equal(rows, x[mask])
    (flat,) = rows_of(linear, x.reshape(6, 4), mask)  # as a mixture of experts calls its router
    assert torch.equal(flat, rows)
    (other,) = rows_of(linear, x[:, :2], mask)
    assert torch.equal(other, x[:, :2].reshape(4, 4))
    convolution = nn.Conv1d(2, 2, 1)
    (patches,) = rows_of(convolution, torch.ones(2, 2, 3), mask)
    assert patches.shape == (6, 2)


def test_patches_are_alike_if_all_that_cuts_them_is():
    a, b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
    assert geometry_key(a) == geometry_key(b)
    assert geometry_key(nn.Linear(4, 2)) == geometry_key(nn.Linear(4, 8)) == ()
    for setting in ({"stride": 2}, {"dilation": 2}, {"groups": 2}, {"padding_mode": "reflect"}):
        assert geometry_key(nn.Conv2d(4, 4, 3, **{"padding": 1, **setting})) != geometry_key(a)
