"""Memory while a model is quantised: two hidden states per token, whatever the model's depth."""

import torch

import vq
from bench.live_tensors import LiveTensors
from rescomp import GPTAQR, Settings, quantize_
from rescomp.factor import inverse_factor
from tests.rescomp.models import llama

HIDDEN = 64


def peak(layers, batches):
    """Bytes over the model at most, with batches of 256 tokens."""
    model = llama(hidden_size=HIDDEN, intermediate_size=96, num_hidden_layers=layers)
    data = [torch.randint(3, 50, (8, 32)) for _ in range(batches)]
    with LiveTensors([*model.parameters(), *model.buffers()], data) as live:
        quantize_(model, data, vq.Recipe({"*_proj": vq.Int3(group=32)}), GPTAQR(),
                  settings=Settings(measure=False))  # fmt: skip
    return live.peak


def test_memory_grows_by_two_hidden_states_per_token():
    few, many = peak(2, 8), peak(2, 40)
    streams = 32 * 256 * 2 * HIDDEN * 4
    assert streams <= many - few < 1.15 * streams  # masks and positions of every batch are kept


def test_memory_does_not_grow_with_the_depth():
    block = 4 * HIDDEN**2 + 3 * HIDDEN * 96
    assert abs(peak(6, 8) - peak(2, 8)) < block  # a byte per weight; float32 has four in each


def test_only_what_is_alive_counts():
    model, other = torch.ones(1000), torch.ones(1000)
    with LiveTensors([model], [other]) as live:
        assert live.now == 0
        other.mul_(2)
        made = torch.zeros(500) + 1  # 2,000 bytes twice
        assert (live.now, live.peak) == (2000, 4000)
        view = made[:10]
        del made
        assert live.now == 2000
        del view, model
        assert live.now == -4000


def test_a_factor_needs_little_more_than_itself():
    x = torch.randn(2000, 1000)
    hessian = x.T @ x
    with LiveTensors([], [hessian]) as live:
        inverse_factor(hessian, 0.01)
    assert live.peak < 3.3 * hessian.nbytes
