"""Functions of the host give what torch gives, and refuse shapes that do not fit."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vq.integer.steps.host import HOST

X = torch.randn(2, 4, 3, 6, generator=torch.Generator().manual_seed(0)) * 3
W, B = torch.randn(4), torch.randn(4)
L = torch.randn(3, 6)
Q, K, V = (torch.randn(2, 2, n, w) for n, w in ((5, 3), (7, 3), (7, 4)))
Y = torch.randn(2, 4, 1, 1)

EACH = [
    ("sum", [X, Y], {}, {}, lambda x, y: x + y),
    ("difference", [X, Y], {}, {}, lambda x, y: x - y),
    ("product", [Y, X], {}, {}, lambda x, y: x * y),
    ("quotient", [X, Y], {}, {}, lambda x, y: x / y),
    ("silu", [X * 100], {}, {}, F.silu),
    ("gelu", [X], {"tanh": False}, {}, F.gelu),
    ("gelu", [X], {"tanh": True}, {}, lambda x: F.gelu(x, approximate="tanh")),
    ("group_norm", [X], {"groups": 2, "affine": True, "module": ""}, {"weight": W, "bias": B},
     lambda x: F.group_norm(x, 2, W, B, 1e-3)),
    ("group_norm", [X], {"groups": 4, "affine": False, "module": ""}, {},
     lambda x: F.group_norm(x, 4, eps=1e-3)),
    ("layer_norm", [X], {"axes": 2, "affine": True, "module": ""}, {"weight": L, "bias": -L},
     lambda x: F.layer_norm(x, (3, 6), L, -L, 1e-3)),
    ("layer_norm", [X], {"axes": 1, "affine": False, "module": ""}, {},
     lambda x: F.layer_norm(x, (6,), eps=1e-3)),
    ("attention", [Q, K, V], {}, {}, F.scaled_dot_product_attention),
    ("concat", [X, X[:, :1]], {"axis": 0}, {}, lambda *x: torch.cat(x, 1)),
    ("reshape", [X], {}, {}, lambda x: x.flatten(2)),
    ("permute", [X], {"axes": [2, 0, 1]}, {}, lambda x: x.permute(0, 3, 1, 2)),
    ("slice", [X], {"axis": 2, "start": 1, "stop": 5}, {}, lambda x: x[..., 1:5]),
    ("upsample", [X], {"factor": 2}, {}, lambda x: F.interpolate(x, scale_factor=2)),
]  # fmt: skip


@pytest.mark.parametrize(("op", "given", "settings", "tensors", "wanted"), EACH)
def test_it_gives_what_torch_gives(op, given, settings, tensors, wanted):
    want, own = wanted(*given), HOST[op]
    assert settings.keys() == own.settings.keys()
    shapes = [tuple(x.shape[1:]) for x in given]
    shape = tuple(want.shape[1:])
    assert own.shape(settings, shapes, shape) == shape
    stored = {name: t.numpy() for name, t in tensors.items()}
    if "norm" in op:
        stored["eps"] = np.array([1e-3], np.float32)
    found = {name: t.shape for name, t in stored.items()}
    assert own.tensors(settings, shapes) == found
    got = own.run(settings, [x.numpy() for x in given], stored, shape)
    assert got.dtype == np.float32
    assert np.allclose(got, want.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("op", "settings", "shapes"),
    [
        ("sum", {}, [(2, 3), (3,)]),
        ("sum", {}, [(2, 3), (4, 3)]),
        ("group_norm", {"groups": 3}, [(4, 3)]),
        ("group_norm", {"groups": 0}, [(4, 3)]),
        ("layer_norm", {"axes": 3}, [(4, 3)]),
        ("attention", {}, [(2, 5, 3), (2, 7, 4), (2, 7, 4)]),
        ("attention", {}, [(5, 3), (7, 3), (7, 3)]),
        ("concat", {"axis": 2}, [(4, 3)]),
        ("concat", {"axis": 0}, [(4, 3), (4, 2)]),
        ("reshape", {}, [(4, 3)]),
        ("permute", {"axes": [0, 0]}, [(4, 3)]),
        ("slice", {"axis": 0, "start": 1, "stop": 5}, [(4, 3)]),
        ("slice", {"axis": 0, "start": 2, "stop": 2}, [(4, 3)]),
        ("upsample", {"factor": 2}, [(4,)]),
        ("upsample", {"factor": 0}, [(4, 3)]),
    ],
)
def test_what_does_not_fit_has_no_shape(op, settings, shapes):
    assert HOST[op].shape(settings, shapes, (5,)) is None
