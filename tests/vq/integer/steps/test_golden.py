"""The golden model against loops over Python's integers, and inputs that it refuses."""

import itertools
import json
import math
from fractions import Fraction

import numpy as np
import pytest

from tests.vq.diffusion import STEPS
from tests.vq.integer.naive import finish
from tests.vq.integer.steps.networks import stored
from vq.container import ContainerError, open_container
from vq.integer.steps import read_steps


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return stored("unet", tmp_path_factory.mktemp("unet"))[0]


def numbers_of(file, name, kind="<f4"):
    kept = file.kept(f"_integer.{name}")
    return np.frombuffer(kept.data, kind).reshape(kept.shape)


def fixed(ratio):
    """Multiplier and shift as section 5 of the specification says, in Python's own floats."""
    if ratio == 0:
        return 0, 1
    shift = min(47, max(1, 15 - math.frexp(abs(ratio))[1]))
    if round(math.ldexp(abs(ratio), shift)) > 32767:
        shift -= 1
    return round(math.ldexp(ratio, shift)), shift


def window(node, x, place, kernel):
    """What a position of a convolution sees, channels innermost."""
    found = []
    for tap in np.ndindex(*kernel):
        sides = zip(place, node["stride"], node["padding"], strict=True)
        starts = [p * s - before for p, s, (before, _) in sides]
        at = tuple(start + k for start, k in zip(starts, tap, strict=True))
        inside = all(0 <= p < n for p, n in zip(at, x.shape[1:], strict=True))
        found += x[:, *at].tolist() if inside else [0] * len(x)
    return found


def layer(file, node, x, steps):
    """Every output of a convolution or a linear, one after another."""
    step_in, step_out = (float(steps[name]) for name in (node["inputs"][0], node["name"]))
    unit, bias = (numbers_of(file, f"{node['name']}.{f}") for f in ("unit", "bias"))
    g = file.geometry(node["layer"])
    weight = file.integers(node["layer"])  # [O, taps * channels], channels innermost
    grouped = g.group > 0
    if grouped:
        scale = numbers_of(file, f"{node['name']}.group_scale", "<i2")
        (t,) = numbers_of(file, f"{node['name']}.group_shift", "u1").tolist()
        assert scale.shape[1] == 1  # one for each output
    out = np.zeros(node["shape"], np.int8)
    kernel = g.shape[2:]
    places = np.ndindex(*node["shape"][1:]) if node["op"] == "conv" else np.ndindex(len(x))
    for place, o in itertools.product(places, range(g.O)):
        columns = window(node, x, place, kernel) if node["op"] == "conv" else x[place]
        total = sum(int(w) * int(v) for w, v in zip(weight[o], columns, strict=True))
        if grouped:
            total = (total * int(scale[o, 0]) + (1 << t >> 1)) >> t
        worth = step_in * float(unit[o])
        total += round(Fraction(float(bias[o]) / worth))
        multiplier, shift = fixed(worth / step_out)
        at = (o, *place) if node["op"] == "conv" else (*place, o)
        out[at] = finish(node, total, multiplier, shift)
    return out


def test_the_device_gives_what_loops_over_integers_give(file):
    """Every layer and sum at two steps, from the file's own tensors."""
    rng = np.random.default_rng(0)
    with open_container(file) as container:
        model = read_steps(container)
        text = json.loads(container.kept("_integer.graph").data)
        scales = numbers_of(container, "scales")
        x = rng.standard_normal((1, 1, 8, 8), np.float32)
        for place in (0, 3):
            values = model.trace(x, text["times"][place], np.array([2]))
            steps = {n["name"]: scales[place, i] for i, n in enumerate(text["nodes"])}
            seen = set()
            for node in text["nodes"]:
                if node["op"] == "add":
                    a, b = (values[name][0].astype(int) for name in node["inputs"])
                    ratios = [float(steps[n]) / float(steps[node["name"]]) for n in node["inputs"]]
                    shift = min(fixed(max(ratios))[1], 47)
                    m, n = (round(math.ldexp(ratio, shift)) for ratio in ratios)
                    total = (a * m + b * n + (1 << shift >> 1)) >> shift
                    want = np.clip(total, -128, 127)
                elif node["op"] in ("conv", "linear") and math.prod(node["shape"]) <= 128:
                    want = layer(container, node, values[node["inputs"][0]][0], steps)
                else:
                    continue
                seen.add(node["op"])
                assert np.array_equal(values[node["name"]][0], want), node["name"]
            assert seen == {"add", "conv", "linear"} or seen == {"add", "conv"}


def test_steps_have_numbers_of_their_own(file):
    with open_container(file) as container:
        model = read_steps(container)
    first, last = (model.parameters(time) for time in (STEPS[0], STEPS[-1]))
    assert any((first[n].multiplier != last[n].multiplier).any() for n in first)
    assert all(first[n].weight is last[n].weight for n in first if first[n].weight.size)


def test_many_images_are_as_each_of_them(file):
    with open_container(file) as container:
        model = read_steps(container)
    x = np.random.default_rng(1).standard_normal((35, 1, 8, 8), np.float32)
    told = np.arange(35) % 4
    together = model.run(x, 300, told)
    for i in (0, 17, 34):
        alone = model.run(x[i : i + 1], 300, told[i : i + 1])
        assert np.allclose(together[i], alone[0], atol=1e-5)


def test_what_cannot_be_asked_is_refused(file):
    with open_container(file) as container:
        model = read_steps(container)
    x, told = np.zeros((2, 1, 8, 8), np.float32), np.array([0, 3])
    with pytest.raises(ContainerError, match="not 500; they are 900, 600, 300, 50"):
        model.run(x, 500, told)
    with pytest.raises(ContainerError, match=r"input must be \[B, 1, 8, 8\], not \[2, 8, 8\]"):
        model.run(x[:, 0], 900, told)
    with pytest.raises(ContainerError, match="finite, not NaN"):
        model.run(x + np.float32(np.nan), 900, told)
    with pytest.raises(ContainerError, match=r"classes must be \[2\], not None"):
        model.run(x, 900)
    with pytest.raises(ContainerError, match=r"classes must be \[2\], not \[1\]"):
        model.run(x, 900, told[:1])
    with pytest.raises(ContainerError, match=r"classes must be 0 to 3, not \[1, 4\]"):
        model.run(x, 900, told + 1)


def test_a_network_without_classes_is_told_none(tmp_path):
    _, model = stored("tiny", tmp_path)
    with pytest.raises(ContainerError, match="classes must be absent"):
        model.run(np.zeros((1, 1, 6, 6), np.float32), 900, np.array([0]))
