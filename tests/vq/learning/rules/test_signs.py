"""Freezing of oscillating signs, replayed against a scalar re-telling of the procedure."""

import math

import pytest
import torch
from torch import nn

import vq
from vq import SSVQ, Recipe
from vq.errors import ConfigError
from vq.formats.model import compressed_layers
from vq.formats.weights import FROZEN
from vq.learning.rules.signs import Freezing, SignFreezer


def layer_with_latent(values):
    """A compressed layer whose latents the test moves by hand."""
    model = nn.Sequential(nn.Linear(8, 2, bias=False))
    vq.compress_(model, Recipe({"0": SSVQ(d=8, k=2)}))
    layer = next(compressed_layers(model))
    set_latent(layer, values)
    return layer


def set_latent(layer, values):
    with torch.no_grad():
        free = layer.latent.abs() < FROZEN
        layer.latent.copy_(torch.where(free, values.reshape(2, 8), layer.latent))


def replay(history, schedule, total):
    """One sign at a time, with plain numbers: returns the final sign and the step of freezing."""
    out = []
    for signs in zip(*history, strict=True):
        previous, flipped, f, votes, window, frozen = signs[0], False, 0.0, 0, 0, None
        for step, sign in enumerate(signs[1:], start=1):
            sign = frozen if frozen is not None else sign
            flip = sign != previous
            f += schedule.momentum * (float(flip and flipped) - f)
            flipped = flipped or flip
            votes, window, previous = votes + (sign > 0), window + 1, sign
            if step % schedule.interval(total):
                continue
            if step >= schedule.warmup * total:
                if frozen is None and f > schedule.threshold(step, total):
                    frozen = sign if 2 * votes == window else (1 if 2 * votes > window else -1)
                    previous = frozen
            votes = window = 0
        out.append(frozen)
    return out


@pytest.mark.parametrize("seed", range(5))
def test_freezes_what_the_procedure_freezes(seed):
    torch.manual_seed(seed)
    total = 60
    schedule = Freezing(interval_steps=6, momentum=0.1, threshold_start=0.5, threshold_end=0.1)
    rate = torch.linspace(0, 0.9, 16)  # from calm to wild
    history = [torch.ones(16)]
    for _ in range(total):
        history.append(torch.where(torch.rand(16) < rate, -history[-1], history[-1]))
    layer = layer_with_latent(history[0])
    freezer = SignFreezer([layer], total, schedule)
    for step, signs in enumerate(history[1:], start=1):
        set_latent(layer, signs)
        freezer.after_step(step)
    expected = replay([h.tolist() for h in history], schedule, total)
    latent = layer.latent.detach().reshape(-1)
    frozen = (latent.abs() >= FROZEN).tolist()
    assert frozen == [e is not None for e in expected]
    assert any(frozen) and not all(frozen)
    for value, sign in zip(latent.tolist(), expected, strict=True):
        if sign is not None:
            assert math.copysign(1, value) == sign


def test_threshold_is_a_cosine_from_start_to_end():
    schedule = Freezing(threshold_start=0.1, threshold_end=0.02, warmup=0.25)
    assert schedule.threshold(25, 100) == pytest.approx(0.1)
    assert schedule.threshold(100, 100) == pytest.approx(0.02)
    assert schedule.threshold(62, 100) == pytest.approx(0.06, abs=0.002)
    steps = [schedule.threshold(s, 100) for s in range(25, 101)]
    assert steps == sorted(steps, reverse=True)


def test_worst_oscillators_freeze_first():
    schedule = Freezing(interval_steps=10, momentum=0.2, threshold_start=0.6, threshold_end=0.05)
    layer = layer_with_latent(torch.ones(16))
    freezer = SignFreezer([layer], 100, schedule)
    at = {}
    signs = torch.ones(16)
    for step in range(1, 101):
        signs = signs.clone()
        signs[0] *= -1  # flips every step
        if step % 5 == 0:
            signs[1] *= -1
        set_latent(layer, signs)
        freezer.after_step(step)
        for i in (0, 1, 2):
            if i not in at and layer.latent.detach().reshape(-1)[i].abs() >= FROZEN:
                at[i] = step
    assert at[0] < at[1] and 2 not in at


def test_nothing_freezes_during_warmup_or_without_a_schedule():
    for schedule, total in ((Freezing(interval_steps=1, warmup=0.9), 100), (None, 100)):
        layer = layer_with_latent(torch.ones(16))
        freezer = SignFreezer([layer], total, schedule)
        for step in range(80):
            set_latent(layer, torch.full((16,), (-1.0) ** step))
            freezer.after_step(step + 1)
        telemetry = freezer.measure()
        assert telemetry.frozen == 0
        assert telemetry.oscillating == 1


def test_telemetry_counts_shares():
    layer = layer_with_latent(torch.ones(16))
    freezer = SignFreezer([layer], 10, None)
    moved = torch.ones(16)
    moved[:4] = -1
    set_latent(layer, moved)
    freezer.after_step(1)
    assert freezer.measure().flipped_now == 0.25
    assert freezer.measure().changed == 0.25
    assert freezer.telemetry() == vars(freezer.measure())
    freezer.after_step(2)
    assert freezer.measure().flipped_now == 0


def test_there_is_nothing_to_tell_without_signs():
    freezer = SignFreezer([], 10, None)
    assert freezer.measure() is None
    assert freezer.telemetry() == {} and freezer.note() == ""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"interval_steps": 0}, "interval_steps must be positive, not 0"),
        ({"momentum": 0.0}, r"momentum must be in \(0, 1\], not 0.0"),
        ({"threshold_end": 0.5}, "thresholds must fall from threshold_start"),
        ({"warmup": 1.0}, r"warmup must be in \[0, 1\), not 1.0"),
        ({"vote": "mean"}, "vote must be 'majority' or 'ema', not 'mean'"),
        ({"counters": "all"}, "counters must be 'window' or 'run', not 'all'"),
    ],
)
def test_impossible_schedules_are_refused(settings, message):
    with pytest.raises(ConfigError, match="^" + message):
        Freezing(**settings)


def freeze_first(history, **settings):
    """Return the signs to which the oscillators of ``history`` (steps of [16]) freeze."""
    schedule = Freezing(
        interval_steps=settings.pop("interval_steps", len(history)),
        momentum=settings.pop("momentum", 0.5),
        threshold_start=0.01,
        threshold_end=0.01,
        warmup=settings.pop("warmup", 0),
        **settings,
    )
    layer = layer_with_latent(torch.ones(16))
    freezer = SignFreezer([layer], len(history), schedule)
    for step, signs in enumerate(history, start=1):
        set_latent(layer, signs.float())
        freezer.after_step(step)
    latent = layer.latent.detach().reshape(-1)
    assert bool((latent.abs() >= FROZEN).all())
    return latent.sign()


def test_majority_and_moving_average_vote_differently():
    # Mostly plus, then minus at the end: a count says plus, an average with a short memory minus.
    history = [torch.full((16,), s) for s in (1, -1, 1, 1, 1, 1, 1, -1, -1, -1)]
    assert (freeze_first(history) == 1).all()
    assert (freeze_first(history, vote="ema", momentum=0.3) == -1).all()


def test_counters_reach_back_to_the_last_event_or_to_the_start():
    # The first half says plus; the second, its own window, minus.
    history = [torch.full((16,), s) for s in (1, 1, -1, 1, 1, 1, -1, -1, 1, -1)]
    late = {"interval_steps": 5, "warmup": 0.6}
    assert (freeze_first(history, **late) == -1).all()
    assert (freeze_first(history, counters="run", **late) == 1).all()


def test_a_tie_keeps_the_present_sign():
    assert (freeze_first([torch.full((16,), s) for s in (1, -1, 1, -1)]) == -1).all()
    assert (freeze_first([torch.full((16,), s) for s in (-1, 1, -1, 1)]) == 1).all()


def test_flip_rate_counts_from_the_epochs_start():
    layer = layer_with_latent(torch.ones(16))
    freezer = SignFreezer([layer], 10, None)
    for step in range(3):
        moved = torch.ones(16)
        moved[: 8 * (step == 1)] = -1
        set_latent(layer, moved)
        freezer.after_step(step + 1)
    assert freezer.measure().flip_rate == pytest.approx(1 / 3)  # half went, half came back
    freezer.start_epoch()
    freezer.after_step(4)
    assert freezer.measure().flip_rate == 0


def test_state_continues_the_history():
    torch.manual_seed(1)
    schedule = Freezing(interval_steps=4, momentum=0.2, threshold_start=0.2, vote="ema")
    history = [torch.where(torch.rand(16) < 0.5, 1.0, -1.0) for _ in range(40)]

    def play(freezer, layer, steps):
        for step in steps:
            set_latent(layer, history[step])
            freezer.after_step(step + 1)

    whole = layer_with_latent(history[0])
    freezer = SignFreezer([whole], 40, schedule)
    play(freezer, whole, range(40))
    first = layer_with_latent(history[0])
    other = SignFreezer([first], 40, schedule)
    play(other, first, range(18))
    second = layer_with_latent(torch.ones(16))
    with torch.no_grad():
        second.latent.copy_(first.latent)
    resumed = SignFreezer([second], 40, schedule)
    resumed.load_state_dict(other.state_dict())
    play(resumed, second, range(18, 40))
    assert torch.equal(whole.latent, second.latent)
    assert resumed.measure() == freezer.measure()
    assert 0 < freezer.measure().frozen
