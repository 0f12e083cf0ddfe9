"""The bench of ViM-VQ: equal bits, images of one use each, arms that differ in what they say."""

import pytest
import torch

import bench.vim_vq as study
from bench.quantised import bits_of
from signbook.zoo import vim
from vq.methods import vim_vq


@pytest.mark.parametrize("bits", [1, 2])
def test_signs_have_no_more_bits(bits):
    with torch.device("meta"):
        model = vim.mnist()
    one = study.Study("mnist", bits, 1)
    plain, signs = (bits_of(model, one.recipe(arm)) for arm in ("vim-vq", "vim-vq+signs"))
    assert 0.97 * plain < signs <= plain == pytest.approx(bits, rel=0.2)


def test_arms_are_trained_as_they_are_named(monkeypatch):
    """On four images: one candidate has decided, four decide in time or, if not asked, never."""
    monkeypatch.setattr(study, "BATCH", 2)
    monkeypatch.setattr(study, "trained_digits", lambda: vim.digits().eval())
    torch.manual_seed(0)
    one = study.Study("digits", 2, 8)
    teacher = one.teacher()
    _, _, images, labels = one.data()
    assert len(images) == len(labels) == 450
    decided = {}

    def spied(*args, **settings):
        record = vim_vq.vim_vq_(*args, **settings)
        told = record.rules["candidates"][-1]
        decided[settings["n"], settings.get("threshold")] = told["decided"], told["replaced"]
        return record

    monkeypatch.setattr(study, "vim_vq_", spied)
    for arm in ("control", "once", "vim-vq", "vim-vq+signs"):
        model, facts = one.made(arm, teacher, images[:4], 1e-2, 0)
        assert study.divergence(model, teacher, images[:4]) > 0 and facts["seconds"] > 0
        faster, _ = one.made(arm, teacher, images[:4], 1e-1, 0)
        assert study.divergence(faster, model, images[:4]) > 0, "at another rate"
    assert decided[1, None] == (1, 0)
    assert decided[4, 1.0][0] == 0 < decided[4, 1.0][1]
    assert decided[4, None][0] == 1
    assert study.divergence(teacher, teacher, images) == 0


def test_images_have_one_use_each():
    learnt, held_out, test, labels = study.Study("digits", 1, 1).data()
    assert (len(learnt), len(held_out)) == (512, 500) and len(test) == len(labels)
    assert torch.cdist(learnt.flatten(1), held_out.flatten(1)).amin() > 0
    assert torch.cdist(torch.cat([learnt, held_out]).flatten(1), test.flatten(1)).amin() > 0
