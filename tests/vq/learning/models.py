"""Networks that the tests of training share."""

import copy

import torch
from torch import nn

import vq
from tests.vq.models import Net, batches
from vq import SSVQ, Recipe

RECIPE = Recipe({"fc1": SSVQ(d=8, k=16), "fc2": SSVQ(d=4, k=8, scale="output")})


def trained(**settings):
    torch.manual_seed(0)
    model = Net()
    vq.compress_(model, RECIPE)
    start = copy.deepcopy(model)
    result = vq.finetune_(model, batches(), epochs=8, **settings)
    return start, model, result


def plain(*, method=None, dropout=0.0):
    """A compressed network without batch norms, and the original."""
    torch.manual_seed(0)
    teacher = nn.Sequential(
        nn.Linear(16, 64), nn.LayerNorm(64), nn.ReLU(), nn.Dropout(dropout), nn.Linear(64, 5)
    )
    model = copy.deepcopy(teacher)
    vq.compress_(model, Recipe({"0": method or SSVQ(d=8, k=8)}))
    return model, teacher
