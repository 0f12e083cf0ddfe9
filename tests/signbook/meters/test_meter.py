"""What meters require of tensors."""

import pytest
import torch

from signbook.meters.meter import pair, require
from vq.errors import ConfigError


@pytest.mark.parametrize(
    ("found", "kind", "message"),
    [
        ([1.0], "finite", "things must be a tensor, not list"),
        (torch.zeros(2), "finite", r"things must be \[2, width\], not \[2\]"),
        (torch.zeros(3, 4), "finite", r"things must be \[2, width\], not \[3, 4\]"),
        (
            torch.zeros(2, 4, dtype=torch.complex64),
            "finite",
            "must be floating point, not complex64",
        ),
        (torch.zeros(2, 4), "integer", "things must be integer, not float32"),
        (torch.zeros(2, 4).long(), "bool", "things must be bool, not int64"),
    ],
)
def test_shapes_and_kinds(found, kind, message):
    with pytest.raises(ConfigError, match=f"{message}$"):
        require(found, "things", [2, "width"], kind)


@pytest.mark.parametrize("batch", [torch.zeros(2, 2), (torch.zeros(2),), (1, 2), [1, 2, 3]])
def test_pairs(batch):
    with pytest.raises(ConfigError, match=r"^a batch must be a pair, inputs and labels$"):
        pair(batch, "labels")
