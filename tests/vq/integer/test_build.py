"""Tracing, folding and calibration."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import vq
from tests.vq.integer.models import Small, Wave, inputs, stored
from vq import Int8, Recipe
from vq.errors import ConfigError
from vq.integer import add_integer
from vq.integer.calibrate import BINS, choose_peak
from vq.integer.trace import trace_model


def described(kind):
    return [
        (d.name, d.op, d.inputs, d.relu, d.norm is not None) for d in trace_model(kind()).drafts
    ]


def test_norms_and_relus_are_folded():
    assert described(Small) == [
        ("x", "input", (), False, False),
        ("stem", "conv", ("x",), True, True),
        ("depth", "conv", ("stem",), True, True),
        ("group", "conv", ("depth",), False, False),
        ("add", "add", ("stem", "group"), True, False),
        ("pool", "maxpool", ("add",), False, False),
        ("down", "conv", ("pool",), False, True),
        ("pad", "shortcut", ("pool",), False, False),
        ("add:2", "add", ("down", "pad"), True, False),
        ("mean", "global_avgpool", ("add:2",), False, False),
        ("fc", "linear", ("mean",), False, False),
    ]
    assert described(Wave) == [
        ("x", "input", (), False, False),
        ("conv", "conv", ("x",), False, True),
        ("pool", "maxpool", ("conv",), False, False),
        ("relu", "relu", ("pool",), False, False),
        ("add", "add", ("relu", "pool"), False, False),
        ("average", "global_avgpool", ("add",), False, False),
        ("flatten", "flatten", ("average",), False, False),
        ("fc1", "linear", ("flatten",), True, False),
        ("view", "flatten", ("fc1",), False, False),
        ("fc2", "linear", ("view",), False, False),
    ]


def test_attributes_of_nodes(tmp_path):
    _, _, model = stored(Small, tmp_path)
    nodes = {node.name: node for node in model.graph.nodes}
    assert (nodes["stem"].stride, nodes["stem"].padding) == ((2, 1), ((1, 1), (2, 2)))
    assert (nodes["depth"].groups, nodes["depth"].padding) == (8, ((1, 1), (0, 0)))
    assert nodes["down"].padding == ((2, 0), (0, 1))
    assert (nodes["pad"].stride, nodes["pad"].channels) == ((2, 2), (1, 3))
    assert nodes["mean"].shape == (12,)
    shared = dict(zip(nodes, model.scales, strict=True))
    assert shared["pad"] == shared["pool"] == shared["add"]


def test_a_silent_norm_leaves_its_bias(tmp_path):
    """Where gamma is 0, the output is beta, whatever comes in."""
    _, dense, model = stored(Small, tmp_path)
    x = np.concatenate([np.full((1, 2, 9, 7), v, np.int8) for v in (-128, 0, 127)])
    beta = max(float(dense.bn.bias[1].detach()), 0.0)
    step = dict(zip((n.name for n in model.graph.nodes), model.scales, strict=True))["stem"]
    found = model.trace(x)["stem"][:, 1]
    assert np.abs(found - min(beta / step, 127)).max() <= 1


def net(forward, **layers):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            for name, layer in layers.items():
                setattr(self, name, layer)

    Net.forward = forward
    return Net()


CONV = nn.Conv2d(2, 2, 1)
REFUSED = {
    "sigmoid": (net(lambda self, x: torch.sigmoid(self.c(x)), c=CONV), "node 'sigmoid': .*sigmoid"),
    "relu6": (net(lambda self, x: self.r(self.c(x)), c=CONV, r=nn.ReLU6()), "node 'r': .*ReLU6"),
    "lone norm": (net(lambda self, x: self.n(x), n=nn.BatchNorm2d(2)), "batch norm that does not"),
    "norm of shared": (
        net(lambda self, x: self.n(y := self.c(x)) + y, c=CONV, n=nn.BatchNorm2d(2)),
        "batch norm that does not",
    ),
    "norm after relu": (
        net(lambda self, x: self.n(F.relu(self.c(x))), c=CONV, n=nn.BatchNorm2d(2)),
        "batch norm that does not",
    ),
    "no statistics": (
        net(
            lambda self, x: self.n(self.c(x)),
            c=CONV, n=nn.BatchNorm2d(2, track_running_stats=False),
        ),
        "without running statistics",
    ),
    "reflection": (
        net(lambda self, x: self.c(x), c=nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect")),
        "padding_mode 'reflect'",
    ),
    "padding with ones": (
        net(lambda self, x: self.c(F.pad(x, (1, 1), value=1.0)), c=CONV), "other than zeros",
    ),
    "padding alone": (net(lambda self, x: F.pad(x, (1, 1)).relu()), "not padding as its input"),
    "padding of images alone": (
        net(lambda self, x: self.c(x) + F.pad(x, (0, 0, 1, 1)), c=CONV), "not padding as its",
    ),
    "mean of channels": (net(lambda self, x: self.c(x).mean(1), c=CONV), "a mean over 1"),
    "indexing": (net(lambda self, x: self.c(x)[:, :, 1:], c=CONV), "indexing other than"),
    "constant": (net(lambda self, x: self.c(x) * 2, c=CONV), "not mul"),
    "input twice": (net(lambda self, x: self.c(x - 1) + x, c=CONV), "also used as it is"),
    "two inputs": (net(lambda self, x, y: x + y), "must have one input, not also 'y'"),
    "two outputs": (net(lambda self, x: (x, x)), "must give one tensor, not tuple"),
    **{
        f"name with {name!r}": (
            net(lambda self, x: x, **{name: nn.ReLU()}),
            r"^module .*: name must be without double quotes, backslashes and line ends, which",
        )
        for name in ('a"b', "a\\b", "a\nb")
    },
    "control flow": (net(lambda self, x: x if x.sum() > 0 else -x), "must be traceable"),
    "adaptive pool": (
        net(lambda self, x: self.p(x), p=nn.AdaptiveAvgPool2d(2)), "not AdaptiveAvgPool2d",
    ),
    "not the last": (
        net(lambda self, x: (y := self.c(x), self.c(y))[0], c=CONV), "must end with the operation",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_other_operations_are_refused_by_name(what):
    model, message = REFUSED[what]
    with pytest.raises(ConfigError, match=message):
        trace_model(model)


def test_layers_that_are_not_compressed_are_all_named(tmp_path):
    model = Wave()
    vq.compress_(model, Recipe({"fc2": Int8()}))
    vq.save(model, tmp_path / "x.vq.safetensors")
    with pytest.raises(ConfigError) as error:
        add_integer(tmp_path / "x.vq.safetensors", Wave(), inputs(Wave))
    assert str(error.value).splitlines() == [
        f"{tmp_path / 'x.vq.safetensors'}: integer graph has 2 problems:",
        "- layer 'conv' must be compressed, not kept; give it Int8() in the recipe",
        "- layer 'fc1' must be compressed, not kept; give it Int8() in the recipe",
    ]


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "must hold at least one batch"),
        (
            [torch.full((1, 2, 9, 7), torch.nan)],
            r"^calibration batch 1, .*, must be such .* those at 'truediv' are not$",
        ),
        ([{"x": torch.zeros(1)}], "must be one tensor, not dict"),
    ],
)
def test_bad_calibration_data_is_refused(tmp_path, batches, message):
    path, _, _ = stored(Small, tmp_path)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=message):
        add_integer(path, Small(), batches)
    assert path.read_bytes() == before


def test_choices_of_the_peak():
    counts = np.zeros(BINS)
    counts[: BINS // 10] = 1000
    assert choose_peak(counts, 10.0, "max") == 10.0
    assert choose_peak(counts, 10.0, "percentile") == pytest.approx(1.0, rel=0.01)
    counts[-1] = 1  # one far value among 400,000
    assert choose_peak(counts, 10.0, "percentile") == pytest.approx(1.0, rel=0.01)
    # The square of what is cut off costs more than the finer steps gain, and the reverse.
    assert choose_peak(counts, 10.0, "mse") > 2
    counts[: BINS // 10] = 10**6
    assert choose_peak(counts, 10.0, "mse") < 5
    with pytest.raises(ConfigError, match="choice must be one of max, percentile, mse, not 'best'"):
        from vq.integer.calibrate import activation_scales

        activation_scales(torch.fx.symbolic_trace(nn.ReLU()), {}, [], "best")


class Raises:
    """Batches of which the second cannot be read."""

    def __iter__(self):
        yield torch.randn(2, 2, 9, 7)
        raise OSError("disk")


GOOD = torch.randn(2, 2, 9, 7)
UNUSABLE = {
    "no batch": (iter([]), r"must hold at least one batch, not none; they give their batches once"),
    "no data": (5, r"data must be batches to iterate over, not int$"),
    "an error": (Raises(), r"data must give batch 2, not raise OSError: disk$"),
    "an empty batch": ([GOOD, GOOD[:0]], r"batch 2 must not be empty, and is float32 \[0"),
    "a tuple of none": ([GOOD, ()], r"batch 2 must not be empty, and is \(\)$"),
    "text": ([GOOD, "text"], r"batch 2, str: inputs must be one tensor, not str$"),
    "two inputs": ([((GOOD, GOOD), 0)], r"batch 1, \(\(float32 .* must be one tensor, not tuple$"),
    "another size": ([GOOD, GOOD[..., 1:]], r"batch 2, .* 9, 6\]: inputs must be shaped like "
                     r"those of batch 1, float32 \[2, 2, 9, 7\], but for the first axis$"),
    "a width": ([torch.randn(2, 3, 9, 7)], r"^model must accept .* batch 1, float32 .2, 3, 9"),
    "not a number": ([GOOD, GOOD * float("nan")], r"^calibration batch 2, .* must be such that "),
    "a dtype": ([GOOD.double()], r"^model must accept calibration batch 1, float64 .* but raises "),
}  # fmt: skip


@pytest.mark.parametrize("case", UNUSABLE)
def test_data_that_cannot_be_used_are_named(tmp_path, case):
    batches, message = UNUSABLE[case]
    path, _, _ = stored(Small, tmp_path)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=message):
        add_integer(path, Small(), batches)
    assert path.read_bytes() == before


def test_a_generator_serves_all_passes(tmp_path):
    path, _, _ = stored(Small, tmp_path)
    batches = inputs(Small)
    one = add_integer(path, Small(), (batch for batch in batches))
    assert one.graph.calibration == add_integer(path, Small(), batches).graph.calibration
