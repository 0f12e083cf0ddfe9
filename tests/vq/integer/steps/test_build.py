"""From a quantised diffusion network to its graph: nearly the same numbers, in integers."""

import numpy as np
import pytest
import torch
from torch import nn

import vq
from tests.vq.diffusion import STEPS, Short, compressed, met
from tests.vq.integer.steps.networks import made, rounded, stored
from vq.activations.timesteps import round_in_time_
from vq.calibration.sampling import Noise
from vq.container import open_container
from vq.errors import ConfigError
from vq.integer.graph import Node
from vq.integer.steps import read_steps
from vq.integer.steps.build import add_steps, integerize_steps


@torch.no_grad()
@pytest.mark.parametrize("name", ["tiny", "unet", "dit"])
def test_it_gives_nearly_what_the_network_gives(name, tmp_path):
    path, built = stored(name, tmp_path)
    model = vq.load(path, into=made(name)).eval()
    with open_container(path) as container:
        graph = read_steps(container)
    for x, step, *classes in met(model, seed=1):
        want, time = model(x, step, *classes).numpy(), int(step[0])
        got = graph.run(x.numpy(), time, *(c.numpy() for c in classes))
        assert got.dtype == np.float32
        assert np.square(got - want).sum() < 0.03 * np.square(want).sum()
        assert np.array_equal(got, built.run(x.numpy(), time, *(c.numpy() for c in classes)))


@torch.no_grad()
def test_codes_that_layers_read_are_those_of_the_learnt_scales(tmp_path):
    """Where the host gives what torch gives, to the bit: at the network's input."""
    path, graph = stored("tiny", tmp_path)
    model = vq.load(path, into=made("tiny")).eval()
    seen = []
    model.stem.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    for x, step in met(model):
        time = int(step[0])
        model(x, step)
        codes = graph.trace(x.numpy(), time)["stem.rounded"]
        scale = graph.scales_at(time)["stem.rounded"]
        assert np.array_equal(codes.astype(np.float32) * scale, seen[-1].numpy())


def test_layers_and_residuals_go_to_the_device_and_the_rest_is_named(tmp_path):
    _, model = stored("unet", tmp_path)
    nodes = model.graph.nodes
    device = [node for node in nodes if isinstance(node, Node)]
    assert sum(node.op == "conv" for node in device) == 16
    assert sum(node.op == "linear" for node in device) == 4
    assert [n.name for n in device if n.op == "add"] == [
        "add_2", "add_4", "add_5", "add_7", "add_9", "add_11",
    ]  # fmt: skip
    host = {node.op for node in nodes if not isinstance(node, Node)}
    assert {"group_norm", "silu", "attention", "concat", "upsample", "table"} <= host
    rows = {name: t["rows"].shape for name, t in model.tensors.items() if "rows" in t}
    assert (4, 4, 8, 1, 1) in rows.values()  # shifts, by step and class
    assert (4, 1, 1, 1, 1) in rows.values()  # shares of the schedule, by step


def test_scales_are_of_values_before_others_change_them(tmp_path):
    """A sum in place must not reach what its first operand was measured to be."""

    class InPlace(nn.Module):
        shape, classes = (1, 6, 6), None

        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(1, 8, 3, padding=1)
            self.out = nn.Conv2d(8, 1, 3, padding=1)

        def forward(self, x, t):
            first = self.stem(x)
            kept = nn.functional.silu(first)
            first += 100 * t[:, None, None, None]
            return self.out(kept + first)

    model = InPlace().eval()
    visits = met(model)
    timed = compressed(model)
    round_in_time_(timed, visits, {"stem": 8, "out": 8}, STEPS)
    vq.save(timed, tmp_path / "x.vq.safetensors")
    with torch.no_grad():
        peak = max(float(model.stem(x).abs().max()) for x, _ in visits)
    built = add_steps(tmp_path / "x.vq.safetensors", model, Short(), Noise((1, 6, 6)))
    place = next(i for i, node in enumerate(built.graph.nodes) if node.name == "stem")
    assert built.scales[:, place].max() < 2 * peak / 127


def test_a_table_of_few_rows_serves_neighbouring_steps(tmp_path):
    _, graph = stored("tiny", tmp_path, rows=2)
    place = next(i for i, node in enumerate(graph.graph.nodes) if node.name == "stem.rounded")
    first, second, third, last = graph.scales[:, place]
    assert first == second != third == last


def test_what_has_no_scales_by_time_step_is_refused(tmp_path):
    path = tmp_path / "plain.vq.safetensors"
    vq.save(compressed(made("tiny")), path)
    with pytest.raises(ConfigError, match=r"must have scales by time step.*w4a8-diffusion"):
        add_steps(path, made("tiny"), Short(), Noise((1, 6, 6)))


@pytest.mark.parametrize(("bits", "symmetric"), [(6, True), (8, False)])
def test_other_activations_are_refused(tmp_path, bits, symmetric):
    model = compressed(made("tiny"))
    round_in_time_(model, met(model), {"stem": bits}, STEPS, symmetric=symmetric)
    vq.save(model, tmp_path / "x.vq.safetensors")
    with pytest.raises(ConfigError, match=rf"'stem': activations must have 8 bits about 0.*{bits}"):
        add_steps(tmp_path / "x.vq.safetensors", made("tiny"), Short(), Noise((1, 6, 6)))


def test_calibration_must_reach_all_steps(tmp_path):
    path, _ = stored("tiny", tmp_path)
    model = vq.load(path, into=made("tiny")).eval()
    with open_container(path) as container:
        with pytest.raises(ConfigError, match=r"must reach all time steps, and lacks \[50\]"):
            integerize_steps(model, container, met(model)[:-1])
        with pytest.raises(ConfigError, match="at least one call, not none"):
            integerize_steps(model, container, [])
        with pytest.raises(ConfigError, match="choice must be one of max"):
            integerize_steps(model, container, met(model), choice="mean")


def test_settings_that_make_no_sense_are_refused(tmp_path):
    path = tmp_path / "unet.vq.safetensors"
    vq.save(rounded("unet"), path)
    model = made("unet")
    draw = Noise(model.shape, model.classes)
    with pytest.raises(ConfigError, match="images must be at least 1, not 0"):
        add_steps(path, model, Short(), draw, images=0)
    with pytest.raises(ConfigError, match="classes must say how many classes"):
        add_steps(path, model, Short(), draw, images=1)
