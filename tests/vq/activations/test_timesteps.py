"""Tables of scales: every step its own, tied rows as one, and steps that nobody calibrated."""

import copy

import pytest
import torch
from torch import nn

import vq
from tests.vq.diffusion import STEPS, Short, compressed, met, tiny
from vq.activations.rounding import Rounding, on_scale
from vq.activations.runtime import attach, detach, runtime_tensors, unrounded
from vq.activations.timesteps import Clock, TimedRounding, clock_of, round_in_time_
from vq.errors import ConfigError, ContainerError, UnsupportedLayerError
from vq.formats.remaining import remaining

NAMES = ("stem", "blocks.0.conv", "blocks.1.conv", "blocks.1.project", "out")
BITS = dict.fromkeys(NAMES, 6)


def timed(model=None, **settings):
    model = model or tiny()
    found = round_in_time_(model, met(model), BITS, STEPS, **settings)
    return model, found


def hook_of(module):
    return next(one for one in remaining(module) if isinstance(one, TimedRounding))


@torch.no_grad()
def test_one_table_for_all_steps_is_static_rounding_bit_for_bit():
    """I1 of the reconstruction, second half: by one row, and by rows that are tied."""
    one, found = timed(rows=1)
    plain, tied = tiny(), tiny()
    clock = Clock(torch.tensor(STEPS))
    clock.enter(tied)
    for layer in found:
        (scale,) = layer.scale
        attach(plain, Rounding(6, scale=torch.tensor([scale])), [layer.name])
        rows = torch.full((len(STEPS),), scale)
        attach(tied, TimedRounding(6, clock, rows), [layer.name])
    for inputs in met(tiny()):
        assert torch.equal(one(*inputs), plain(*inputs))
        assert torch.equal(tied(*inputs), plain(*inputs))


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_table_is_never_worse_than_one_scale_on_the_calibration(symmetric):
    """I3, by construction: the shared grid is among those that every row is chosen from."""
    for layer in timed(symmetric=symmetric)[1]:
        assert layer.error <= layer.shared_error and layer.error > 0
        assert len(layer.scale) == len(STEPS)
    stem = timed()[1][0]
    assert len(set(stem.scale)) > 1 and stem.error < stem.shared_error


@torch.no_grad()
def test_rows_of_a_batch_may_be_at_several_steps():
    model, _ = timed()
    calls = met(tiny(), count=2)
    apart = torch.cat([model(*inputs) for inputs in calls])
    together = model(*(torch.cat(parts) for parts in zip(*calls, strict=True)))
    torch.testing.assert_close(together, apart)
    hook = hook_of(model.stem)
    hook.clock.places = torch.tensor([0, 3])
    x = torch.randn(4, 3)
    rounded = hook.apply(x)
    assert torch.equal(rounded[2:], on_scale(x[2:], hook.scale[3], 6))
    with pytest.raises(
        ConfigError, match=r"as many rows as the network, 2, or a multiple .* not 3"
    ):
        hook.apply(x[:3])


def test_neighbours_share_rows_evenly():
    _, found = timed(rows=2)
    model, _ = timed(rows=2)
    clock = clock_of(model)
    clock.places = torch.arange(4)
    assert clock.rows(2, 4).tolist() == [0, 0, 1, 1] and clock.rows(3, 4).tolist() == [0, 0, 1, 2]
    assert all(len(layer.scale) == 2 for layer in found)


def test_levels_of_an_asymmetric_grid_reach_from_the_least_value_to_the_greatest():
    model, _ = timed(symmetric=False, percentile=100)
    hook = hook_of(model.out)
    assert hook.zero.dtype == torch.uint8 and not hook.symmetric
    values = {}
    model.out.register_forward_pre_hook(lambda m, args: values.setdefault("x", args[0]))
    model(*met(tiny())[0])
    levels = values["x"].detach() / hook.scale[0] + hook.zero[0]
    assert float(levels.min()) > -0.5 and float(levels.max()) < 63.5
    assert len(levels.round().unique()) <= 64


def test_percentiles_cut_off_what_is_rare():
    whole, cut = (timed(percentile=share)[1] for share in (100, 95))
    assert all(b < a for a, b in zip(whole[0].scale, cut[0].scale, strict=True))


@pytest.mark.parametrize("symmetric", [True, False])
def test_scales_learn_by_the_gradient_of_lsq(symmetric):
    model, _ = timed(symmetric=symmetric)
    hook = hook_of(model.stem)
    gain = hook.free_steps()
    hook.clock.places = torch.tensor([2, 2])
    x = 1.2 * torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    x.requires_grad_()
    upstream = torch.randn(2, 50, generator=torch.Generator().manual_seed(1))
    hook.apply(x).backward(upstream)
    low, high = (-32, 31) if symmetric else (-int(hook.zero[2]), 63 - int(hook.zero[2]))
    ratio = (x / hook.scale[2]).detach()
    inside = (ratio.round() >= low) & (ratio.round() <= high)
    assert 0 < (~inside).sum() < 50
    slope = torch.where(inside, ratio.round() - ratio, ratio.clamp(low, high))
    assert float(gain.grad[2]) == pytest.approx(
        float((upstream * slope).sum() * hook.scale[2]), 1e-4
    )
    assert gain.grad[[0, 1, 3]].abs().sum() == 0
    assert torch.equal(x.grad, torch.where(inside, upstream, 0))
    torch.testing.assert_close(x.grad, torch.where(inside, upstream, 0.0))
    gain.data[2] = 1.25
    before = hook.apply(x).detach()
    hook.fix_steps()
    assert torch.equal(hook.apply(x), before) and hook.gain is None


@torch.no_grad()
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_loaded_model_computes_the_same_bits(symmetric, tmp_path):
    path = tmp_path / "a.vq.safetensors"
    model, _ = timed(compressed(tiny()), symmetric=symmetric)
    assert vq.save(model, path).layout == "vqstream/2"
    loaded = vq.load(path, into=tiny())
    for inputs in met(tiny(), seed=3):
        assert torch.equal(loaded(*inputs), model(*inputs))
    assert runtime_tensors(loaded) == runtime_tensors(model)
    twin = copy.deepcopy(model)
    assert clock_of(twin) is not clock_of(model)
    assert torch.equal(twin(*inputs), model(*inputs))
    vq.save(twin, tmp_path / "b.vq.safetensors")
    assert (tmp_path / "b.vq.safetensors").read_bytes() == path.read_bytes()
    with vq.container.open_container(path) as file:
        rows = file.runtime_facts()["runtime"]
    assert [row["kind"] for row in rows] == ["clock", *["timed_rounding"] * 5]
    assert [row["macs_per_token"] for row in rows] == [0, 1, 8, 8, 12, 8]
    with unrounded(model):
        quiet = model(*inputs)
    detach(model)
    assert torch.equal(model(*inputs), quiet) and not torch.equal(quiet, loaded(*inputs))


def test_damaged_tables_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.vq.safetensors"
    model, _ = timed(compressed(tiny()))
    clock_of(model).times[1] = clock_of(model).times[0]
    vq.save(model, path)
    with pytest.raises(ContainerError, match=r"'_runtime.0.times' must name every step once"):
        vq.load(path, into=tiny())
    model, _ = timed(compressed(tiny()))
    hook_of(model.stem).scale[1] = -1
    vq.save(model, path)
    fresh = tiny()
    with pytest.raises(ContainerError, match=r"'_runtime.1.scale' must be positive"):
        vq.load(path, into=fresh)
    assert not any(map(remaining, fresh.modules()))


def test_steps_that_were_not_calibrated_are_refused_with_the_list():
    model, _ = timed()
    x, _ = met(tiny())[0]
    with pytest.raises(
        ConfigError, match=r"must be one that was calibrated, not 77; they are 900, 600, 300, 50$"
    ):
        model(x, torch.full((4,), 77))
    list(Short(STEPS[:2]).visits(model, x))  # fewer of them are fine
    with pytest.raises(ConfigError, match="not alone: only that knows the step"):
        model.stem(x)
    with pytest.raises(
        ConfigError, match=r"must be called with \(inputs, time steps, ...\), and T"
    ):
        model(x)
    assert torch.equal(model(noisy=x, step=torch.full((4,), 50)), model(x, torch.full((4,), 50)))


@pytest.mark.parametrize(
    ("match", "settings"),
    [
        ("activation bits must be 2 to 8, not 9", {"bits": {"stem": 9}}),
        ("must have at least one layer and time step", {"bits": {}}),
        ("must have at least one layer and time step", {"times": ()}),
        (r"time steps must differ, not be \[5, 5\]", {"times": (5, 5)}),
        ("rows must be 1 to 4, the time steps, not 5", {"rows": 5}),
        ("percentile must be above 50 and at most 100, not 0.99", {"percentile": 0.99}),
        ("must hold the layers nothing, not lack them", {"bits": {"nothing": 8}}),
        ("calibration must reach all time steps, and lacks 7", {"times": (*STEPS, 7)}),
        ("must be one that was calibrated, not 50; they are 900, 600, 300", {"times": STEPS[:3]}),
        ("of one time step in every call, not of .900, 50.", {"visits": "mixed"}),
        ("run at every time step to be rounded, and idle do", {"bits": {"idle": 8}}),
    ],
)
def test_bad_settings_are_refused(match, settings):
    model = tiny()
    model.idle = nn.Linear(2, 2)
    visits = met(model)
    if settings.pop("visits", None):
        x, _ = visits[0]
        visits = [(x, torch.tensor([900, 900, 50, 50])), *visits]
    given = {"bits": {"stem": 8}, "times": STEPS, **settings}
    with pytest.raises(ConfigError, match=match):
        round_in_time_(model, visits, given.pop("bits"), given.pop("times"), **given)
    assert not any(map(remaining, model.modules()))


def test_layers_that_cannot_be_rounded_or_are_already_are_refused():
    model, _ = timed()
    with pytest.raises(UnsupportedLayerError, match=r"'blocks.0.act': must be linear or a conv"):
        round_in_time_(tiny(), met(tiny()), {"blocks.0.act": 8}, STEPS)
    with pytest.raises(ConfigError, match="must not be rounded already, as those of stem are"):
        round_in_time_(model, met(tiny()), {"stem": 8}, STEPS)
    with pytest.raises(ConfigError, match=r"that the model has tables for already, \[900, 600"):
        round_in_time_(model, met(tiny()), {"blocks.0.project": 8}, STEPS[:2])
    more = round_in_time_(model, met(tiny()), {"blocks.0.project": 8}, STEPS)
    assert len(more) == 1 and hook_of(model.blocks[0].project).clock is clock_of(model)
