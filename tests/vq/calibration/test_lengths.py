"""Texts as long as the model allows, whatever a batch looks like."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from vq.calibration.lengths import check_length
from vq.errors import ConfigError


def limited():
    model = nn.Linear(2, 2)
    model.config = SimpleNamespace(max_position_embeddings=8)
    return model


@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: (t, t), lambda t: {"input_ids": t}])
def test_longer_texts_are_refused(wrap):
    check_length(limited(), [wrap(torch.zeros(1, 8).long())])
    with pytest.raises(ConfigError, match=r"at most the model's 8 tokens long, not 9$"):
        check_length(limited(), [wrap(torch.zeros(1, 9).long())])


def test_models_and_data_without_lengths_are_not_asked():
    check_length(nn.Linear(2, 2), [torch.zeros(1, 9).long()])
    check_length(limited(), [torch.zeros(1, 9), torch.zeros(9).long()])
