"""Tensors that are stored as they are keep their dtype, their shape, their bytes and their ties."""

import pytest
import torch

from vq.errors import ConfigError
from vq.formats.kept import kept_of, require_names, tensor_of, tied_tensors

DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16,
    torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2,
]  # fmt: skip


@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_come_back_as_they_were(dtype, shape):
    tensor = torch.randint(0, 2, shape).to(dtype)
    back = tensor_of(kept_of(tensor))
    assert (back.dtype, back.shape) == (tensor.dtype, tensor.shape)
    assert kept_of(back) == kept_of(tensor)


def test_views_are_stored_by_their_values():
    tensor = torch.arange(6.0).reshape(2, 3).T
    assert torch.equal(tensor_of(kept_of(tensor)), tensor)


def test_complex_tensors_are_refused():
    with pytest.raises(ConfigError, match=r"^tensors to keep must have one of the dtypes BOOL, "):
        kept_of(torch.zeros(1, dtype=torch.complex64))


def test_names_of_one_tensor_are_one_group():
    shared, alone = torch.zeros(2), torch.zeros(2)
    groups = tied_tensors({"a": shared, "b": alone, "c": shared})
    assert [names for names, _ in groups] == [["a", "c"], ["b"]]
    assert groups[0][1] is shared


def test_names_of_integer_graphs_are_not_a_models():
    with pytest.raises(
        ConfigError, match=r"^model must not hold '_integer\.a', '_integer\.b': nam"
    ):
        require_names(["a", "_integer.a", "_integer", "x._integer.c", "_integer.b"])
    require_names(["_integers.a"])
