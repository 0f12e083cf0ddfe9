"""ViM-VQ: confirmation beats rounding once, and newcomers come."""

import pytest
import torch

import vq
from tests.vq.methods.models import distance, inputs, pair
from vq.methods.vim_vq import vim_vq_

KIND = vq.VQ(d=4, k=6, scale="output")


def learnt(kind=KIND, **settings):
    model, teacher = pair(kind)
    result = vim_vq_(model, inputs(), teacher, **{"epochs": 15, "seed": 0, **settings})
    return model, result, distance(model, teacher)


def test_confirmed_one_by_one_it_fits_better_than_rounded_once():
    _, result, confirmed = learnt()
    _, other, once = learnt(forced=None, threshold=1.0)
    assert confirmed < 0.7 * once
    assert other.losses[-1] < result.losses[-1]  # soft, it looked better
    assert result.rules["candidates"][-1]["replaced"] > 0


def test_scales_learn_where_they_are_stored():
    before = pair(KIND)[0]
    units = [m.parametrizations.weight[0].unit for m in (before.blocks[0][1],)]
    model, _, _ = learnt(epochs=2)
    assert not torch.equal(model.blocks[0][1].parametrizations.weight[0].unit, units[0])


@pytest.mark.parametrize(
    "setting", [{"replace_steps": None}, {"towards": "descent"}, {"n": 2}, {"penalty": 1.0}]
)
def test_every_switch_makes_another_run(setting):
    assert learnt(epochs=4, **setting)[1].losses != learnt(epochs=4)[1].losses
