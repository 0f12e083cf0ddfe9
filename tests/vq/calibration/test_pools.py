"""Pools: who draws them, in which order they are handed out, and that a pass can go on."""

import pytest
import torch

from tests.vq.diffusion import STEPS, Short, met, tiny
from vq.calibration.pools import Forward, Pools
from vq.calibration.sampling import Noise
from vq.errors import ConfigError


def pools(model=None, original=None, **settings):
    model = model or tiny(seed=1)
    given = {"seeds": 8, "batch": 4, **settings}
    return Pools(Short(), model, original or tiny(), Noise(model.shape, model.classes), **given)


def rows(loader):
    return [inputs for (inputs,) in loader]


def test_a_shuffled_pass_mixes_steps_and_loses_no_row():
    found = rows(pools())
    assert len(found) == len(pools()) == 8 and all(len(step) == 4 for _, step in found)
    assert max(len(step.unique()) for _, step in found) > 2
    steps = torch.cat([step for _, step in found])
    assert [int((steps == t).sum()) for t in STEPS] == [8] * 4


def test_a_serial_pass_takes_a_batch_of_seeds_through_all_steps():
    found = rows(pools(shuffled=False))
    assert [step.unique().tolist() for _, step in found] == [[t] for t in STEPS] * 2


def test_the_pool_is_of_the_model_that_learns_as_it_is_now():
    model, original = tiny(seed=1), tiny()
    own = pools(model, original, shuffled=False)
    first, second = rows(own), rows(own)
    assert not torch.equal(first[0][0], second[0][0])  # new noise in every round
    with torch.no_grad():
        model.out.weight.mul_(0.5)
    again = pools(model, original, shuffled=False)
    changed = rows(again)
    assert torch.equal(changed[0][0], first[0][0]) and not torch.equal(changed[1][0], first[1][0])
    theirs = rows(pools(model, original, policy="original", shuffled=False))
    with torch.no_grad():
        path = list(Short().visits(original, theirs[0][0]))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(theirs, path, strict=False))
    assert model.training is False


def test_images_may_be_noised_instead():
    images, classes = torch.ones(5, 1, 6, 6), torch.arange(5) % 3
    forward = Forward(images, (classes,), lambda x, step, noise: x + step[:, None, None, None])
    found = rows(pools(tiny(3), tiny(3), policy="noised", forward=forward))
    assert len(found) == 8 and all(len(inputs) == 3 for inputs in found)
    for noisy, step, _ in found:
        assert torch.equal(noisy, 1 + step[:, None, None, None].expand_as(noisy).float())


def test_a_pass_goes_on_with_what_was_drawn():
    model = tiny(seed=1)
    first = pools(model)
    rows(first)
    iterator = iter(first)
    wanted = [next(iterator) for _ in range(3)]
    kept = first.drawn()
    with torch.no_grad():
        model.out.weight.mul_(2)
    second = pools(model)
    second.take(kept)
    found = list(second)
    assert all(
        torch.equal(a, b)
        for one, other in zip(wanted, found, strict=False)
        for a, b in zip(one[0], other[0], strict=True)
    )
    assert second.drawn()["round"] == 2
    rows(second)
    assert second.drawn()["round"] == 3


def test_some_of_a_pool_is_spread_over_it():
    loader = pools(shuffled=False)
    assert loader.some(4) == []
    rows(loader)
    assert [int(step[0]) for _, step in loader.some(4)] == [900, 300, 900, 300]


@pytest.mark.parametrize(
    ("match", "settings"),
    [
        ("policy must be one of own, original, noised, not 'other'", {"policy": "other"}),
        ("seeds must be a positive multiple of the batch, not 6 for 4", {"seeds": 6}),
        ("seeds must be a positive multiple of the batch, not 8 for 0", {"batch": 0}),
        ("images to noise must be given with policy 'noised'", {"policy": "noised"}),
    ],
)
def test_bad_settings_are_refused(match, settings):
    with pytest.raises(ConfigError, match=match):
        pools(**settings)


def test_latents_that_are_not_numbers_are_refused():
    model = tiny()
    model.out.bias.data.fill_(torch.nan)
    with pytest.raises(ConfigError, match="latents must be finite"):
        rows(pools(model))
    assert len(met(tiny())) == 4
