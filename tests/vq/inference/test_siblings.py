"""Linears that read the same: one call, the same bits."""

import copy

import pytest
import torch
from torch import nn

import vq
from vq import SSVQ, Int8, Recipe
from vq.inference.kernels import Kernels


class Attention(nn.Module):
    """Queries, keys and values of one input, or keys and values of another one."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(32, n) for n in (32, 16, 24, 8))
        self.changed = False

    def forward(self, x, other=None):
        q = self.q(x)
        if self.changed:
            x.mul_(2)
        given = x if other is None else other
        return q, self.k(given), self.v(given), self.o(q)


@pytest.fixture
def attention():
    torch.manual_seed(0)
    model = nn.Sequential(Attention()).eval()
    vq.compress_(model, Recipe({"0.v": Int8(), "0.q": SSVQ(d=8, k=16), "*": SSVQ(d=4, k=16)}))
    return vq.pack_(model)[0]


@pytest.fixture
def calls(monkeypatch):
    """How many layers each call of the kernels multiplies by."""
    counts, linear = [], Kernels.linear

    def counted(self, layers, x, activations):
        counts.append(len(layers))
        return linear(self, layers, x, activations)

    monkeypatch.setattr(Kernels, "linear", counted)
    return counts


def alone(model, *inputs):
    """What the layers give, each by itself."""
    shared = model.q.siblings
    for layer in model.children():
        layer.siblings = None
    found = model(*inputs)
    for layer in model.children():
        layer.siblings = shared
    return found


def equal(a, b):
    return all(torch.equal(one, other) for one, other in zip(a, b, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_reads_the_same_is_multiplied_together(attention, calls, dtype):
    for tokens in (1, 1, 3, 1):
        x = torch.randn(1, tokens, 32).to(dtype)
        wanted = alone(attention, x)
        calls.append(0)
        assert equal(attention(x), wanted)
    parts = "-".join(map(str, calls)).split("-0-")
    assert parts == ["1-1-1-1", "1-1-1-1-1-1-1-1", "3-1-1-1-1-1", "3-1-1-1-1-1", "3-1"]


def test_long_texts_are_multiplied_layer_by_layer(attention, calls):
    for _ in range(3):
        attention(torch.randn(1, 40, 32))
    assert set(calls) == {1}


def test_what_stops_reading_the_same_runs_alone_again(attention, calls):
    x, other = torch.randn(2, 32), torch.randn(2, 32)
    for _ in range(2):
        attention(x)
    assert calls == [1, 1, 1, 1, 3, 1]
    for _ in range(2):
        assert equal(attention(x, other), alone(attention, x, other))
    assert calls[6] == 3 and set(calls[7:]) == {1}


def test_values_count_and_not_tensors(attention, calls):
    with torch.inference_mode():
        for _ in range(2):
            attention(torch.randn(1, 32))
        attention.changed = True
        x = torch.randn(1, 32)
        wanted = alone(attention, x.clone())
        assert equal(attention(x), wanted)
    assert 3 in calls


def test_copies_and_state(attention, calls):
    x, names = torch.randn(1, 32), list(attention.state_dict())
    for _ in range(2):
        attention(x)
    other = copy.deepcopy(attention)
    assert list(attention.state_dict()) == list(other.state_dict()) == names
    assert other.q.siblings is other.o.siblings is not attention.q.siblings
    calls.clear()
    assert equal(other(x), attention(x)) and calls == [1, 1, 1, 1, 3, 1]


def test_compilers_see_each_layer(attention):
    x = torch.randn(1, 32)
    for _ in range(2):
        wanted = attention(x)
    compiled = torch.compile(attention, fullgraph=True, backend="eager")
    assert equal(compiled(x), wanted)
