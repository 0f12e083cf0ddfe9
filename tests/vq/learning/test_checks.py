"""Models that cannot be trained; tests/vq/test_distributed.py has those that are sharded."""

import copy

import pytest
import torch
from torch import nn

import vq
from tests.vq.models import Net
from vq.errors import ConfigError
from vq.formats.kept import require_kept
from vq.learning.checks import check_models


def test_models_that_cannot_be_trained_are_refused():
    model = Net()
    with pytest.raises(ConfigError, match=r"^model must hold a compressed layer, not none; call"):
        check_models(model, None)
    teacher = copy.deepcopy(model)
    vq.compress_(model, vq.Recipe({"fc1": vq.SSVQ(d=8, k=4)}))
    check_models(model, None)
    check_models(model, teacher)
    with pytest.raises(ConfigError, match=r"^teacher must be another model, not the one that lear"):
        check_models(model, model)
    with pytest.raises(ConfigError, match=r"^model must hold a compressed layer"):
        check_models(nn.Sequential(nn.Linear(2, 2)), teacher)


def test_float16_is_refused_before_it_diverges():
    model = nn.Sequential(nn.Linear(8, 8))
    vq.compress_(model, vq.Recipe({"*": vq.Int8()}), progress=False)
    check_models(model.half().bfloat16(), None)
    with pytest.raises(
        ConfigError, match=r"^model must not train in float16, .* as '0\.bias' would; train it"
    ):
        check_models(model.half(), None)
    model[0].bias.requires_grad_(False)
    check_models(model, None)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (
            torch.zeros(2, dtype=torch.complex64),
            r"tensor 'extra': tensors to keep must have one of",
        ),
        (torch.zeros(2, 2).to_sparse(), r"tensor 'extra' must be dense, not torch.sparse_coo"),
    ],
)
def test_what_cannot_be_stored_is_not_trained(tensor, message):
    model = nn.Sequential(nn.Linear(8, 8))
    vq.compress_(model, vq.Recipe({"*": vq.SSVQ(d=4, k=4)}), progress=False)
    model.register_buffer("extra", tensor)
    with pytest.raises(ConfigError, match=rf"^model to store has 1 problem:\n- .*{message}"):
        check_models(model, None)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_nested_tensors_are_not_dense():
    nested = torch.nested.nested_tensor([[1.0], [2.0, 3.0]])
    with pytest.raises(ConfigError, match=r"\n- tensor 'extra' must be dense, not nested"):
        require_kept({"extra": nested})
