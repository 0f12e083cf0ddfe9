"""From torch to drafts: what goes where, and what is refused by name."""

import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

from vq.errors import ConfigError
from vq.integer.steps.trace import Sources, trace_network, translated


class Network(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.register_buffer("spread", torch.arange(4.0))
        self.body = body

    def forward(self, x, t):
        return self.body(self, x, t)


def drafts_of(body, layers=("conv",)):
    model = Network(body).eval()
    module = trace_network(model)
    inputs = torch.randn(2, 2, 4, 4), torch.full((2,), 5)

    seen = fx.Interpreter(module, garbage_collect_values=False)
    seen.run(*inputs)
    return translated(module, seen.env, layers)


def ops(drafts):
    return [draft.op for draft in drafts]


def test_what_depends_on_the_step_alone_is_one_table():
    def body(m, x, t):
        share = (t / 1000).sqrt() + 1
        return m.conv(x) * share[:, None, None, None]

    drafts = drafts_of(body)
    assert ops(drafts) == ["input", "quantize", "conv", "table", "product"]
    assert drafts[3].settings == {"steps": True, "classes": False}
    assert drafts[3].shape == (1, 1, 1)


def test_numbers_and_buffers_are_constants():
    drafts = drafts_of(lambda m, x, t: 2 * x / m.spread)
    assert ops(drafts) == ["input", "table", "product", "table", "quotient"]
    assert [d.shape for d in drafts] == [(2, 4, 4), (1, 1, 1), (2, 4, 4), (1, 1, 4), (2, 4, 4)]
    assert drafts[3].tensors["rows"].flatten().tolist() == [0, 1, 2, 3]


def test_a_constant_serves_values_of_several_ranks():
    drafts = drafts_of(
        lambda m, x, t: (x.flatten(2) + m.spread[:1]).unflatten(2, (4, 4)) * m.spread
    )
    assert [d.shape for d in drafts if d.op == "table"] == [(1, 1), (1, 1, 4)]


def test_sums_of_what_layers_give_stay_on_the_device():
    def body(m, x, t):
        first = m.conv(x)
        return first + m.conv(F.silu(first))

    drafts = drafts_of(body)
    assert ops(drafts) == ["input", "quantize", "conv", "silu", "quantize", "conv", "add"]
    assert drafts[-1].inputs == [drafts[2], drafts[5]]


def test_what_a_residual_adds_is_rounded_for_it():
    drafts = drafts_of(lambda m, x, t: F.silu(x) + m.conv(x))
    assert ops(drafts) == ["input", "silu", "quantize", "conv", "quantize", "add"]
    assert (drafts[2].layer, drafts[4].layer) == ("conv", "")


def test_shapes_are_those_that_were_seen():
    def body(m, x, t):
        flat = x.flatten(2).transpose(1, 2)
        return flat.transpose(1, 2).unflatten(2, x.shape[2:])

    drafts = drafts_of(body)
    assert ops(drafts) == ["input", "reshape", "permute", "permute", "reshape"]
    assert [d.shape for d in drafts[1:]] == [(2, 16), (16, 2), (2, 16), (2, 4, 4)]


def test_parts_and_pixels():
    def body(m, x, t):
        left, right = torch.cat([x, x], dim=1).chunk(2, dim=1)
        return F.pixel_shuffle(torch.cat([left, right], dim=1), 2)

    drafts = drafts_of(body)
    assert ops(drafts) == [
        "input", "concat", "slice", "slice", "concat", "reshape", "permute", "reshape",
    ]  # fmt: skip
    assert drafts[3].settings == {"axis": 0, "start": 2, "stop": 4}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (lambda m, x, t: torch.sin(x), "'sin': must be an operation.*not sin"),
        (lambda m, x, t: x[:, :1], "indexing other than"),
        (lambda m, x, t: F.interpolate(x, scale_factor=1.5), "whole factors"),
        (lambda m, x, t: x.transpose(0, 1), "moving the batch"),
        (lambda m, x, t: torch.cat([x, x]), "rows of the batch"),
        (lambda m, x, t: x.flatten(0, 1), "rows of the batch together, or apart"),
        (lambda m, x, t: torch.add(x, x, alpha=2), "with settings"),
        (lambda m, x, t: F.scaled_dot_product_attention(x, x, x, is_causal=True), "with a mask"),
    ],
)
def test_what_no_graph_has_is_refused_by_name(body, message):
    with pytest.raises(ConfigError, match=message):
        drafts_of(body)


def test_layers_without_scales_are_refused():
    with pytest.raises(ConfigError, match="layer 'conv' must have 4- or 8-bit weights"):
        drafts_of(lambda m, x, t: m.conv(x), layers=())


def test_what_torch_fx_cannot_follow_is_refused():
    def body(m, x, t):
        return x if x.sum() > 0 else -x

    with pytest.raises(ConfigError, match=r"Network must be traceable by torch\.fx"):
        drafts_of(body)
    with pytest.raises(ConfigError, match="not with 1 arguments"):
        trace_network(nn.Identity())


def test_shapes_carry_no_dependence():
    model = Network(lambda m, x, t: x * torch.ones(x.shape[1]).sum() + t[:, None, None, None])
    module = trace_network(model)
    sources = Sources.in_graph(module.graph)
    apart = {node.name for node in module.graph.nodes if sources.is_apart(node)}
    assert "sum_1" in apart
    assert "add" not in apart
