"""Tracing: small models whose layers can be written down."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import vq
from hwsim.workloads import INPUT, Workload, workload_of_model
from vq.container import ConfigError


def listed(found: Workload) -> list[tuple[str, str]]:
    return [(layer.name, layer.op) for layer in found.layers]


class Residual(nn.Module):
    """Stride, groups, dilation, batch norms, both kinds of shortcut, pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.pool = nn.MaxPool2d(3, 2, padding=1, ceil_mode=True)
        self.depth = nn.Conv2d(16, 16, (3, 5), padding=(2, 2), dilation=(2, 1), groups=16)
        self.act = nn.Hardswish()
        self.down = nn.Conv2d(16, 32, 1, stride=(2, 3))
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.bn(self.stem((x - 0.5) / 0.25))))
        x = x + self.act(self.depth(x))
        y = self.down(x)
        x = torch.relu_(y + F.pad(x[:, :, ::2, ::3], (0, 0, 0, 0, 8, 8)))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


def test_residual_network() -> None:
    model = Residual()
    found = workload_of_model(model, torch.rand(1, 3, 28, 22), name="small")
    assert (found.name, found.trained) == ("small", False)
    assert found.source == "Residual, traced with a sample"
    assert [(layer.name, layer.op, layer.sources) for layer in found.layers] == [
        ("stem", "conv2d", (INPUT,)),
        ("pool.maxpool", "maxpool", ("stem",)),
        ("depth", "conv2d", ("pool.maxpool",)),
        ("act", "activation", ("depth",)),
        ("add", "add", ("pool.maxpool", "act")),
        ("down", "conv2d", ("add",)),
        ("shortcut", "shortcut", ("add",)),
        ("add:2", "add", ("down", "shortcut")),
        ("avgpool", "avgpool", ("add:2",)),
        ("fc", "linear", ("avgpool",)),
    ]  # fmt: skip
    stem, pool, depth, act, _, down, shortcut, add, avgpool, fc = found.layers
    assert (stem.out_height, stem.out_width, stem.stride) == (14, 11, (2, 2))
    assert (pool.out_height, pool.out_width) == (8, 6)  # of 14 x 11, rounded up
    assert (depth.kernel, depth.dilation, depth.groups) == ((3, 5), (2, 1), 16)
    assert depth.padding == ((2, 2), (2, 2))
    assert (act.inputs, act.height, act.width) == (16, 8, 6)
    assert (down.out_height, down.out_width) == (4, 2)
    assert (shortcut.outputs, shortcut.stride, shortcut.out_width) == (32, (2, 3), 2)
    assert (add.inputs, add.height, add.width) == (32, 4, 2)
    assert avgpool.kernel == (4, 2)
    assert stem.kept == 32  # of its batch norm
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.macs == 14 * 11 * 27 * 16 + 48 * 15 * 16 + 8 * 16 * 32 + 320
    assert fc.rows == 1


def test_the_model_is_left_as_it_was() -> None:
    model = Residual().train()
    model.fc.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    workload_of_model(model, torch.rand(1, 3, 28, 22))
    assert model.training and model.bn.training and not model.fc.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


class Attention(nn.Module):
    """A block in which attention is written out, with learned positions."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 16)
        self.places = nn.Parameter(torch.zeros(1, 6, 16))
        self.norm = nn.LayerNorm(16)
        self.qkv = nn.Linear(16, 48)
        self.out = nn.Linear(16, 16, bias=False)
        self.gelu = nn.GELU()
        self.head = nn.Linear(16, 50, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids) + self.places
        q, k, v = self.qkv(self.norm(x)).reshape(-1, 6, 3, 2, 8).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-2, -1)) / 8**0.5
        y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, 6, 16)
        return self.head(self.gelu(x + self.out(y)))


def test_transformer() -> None:
    model = Attention()
    found = workload_of_model(model, torch.zeros(1, 6, dtype=torch.long))
    assert listed(found) == [
        ("words", "embedding"), ("add", "add"), ("norm", "norm"), ("qkv", "linear"),
        ("matmul", "matmul"), ("softmax", "softmax"), ("matmul:2", "matmul"), ("out", "linear"),
        ("add:2", "add"), ("gelu", "activation"), ("head", "linear"),
    ]  # fmt: skip
    by_name = {layer.name: layer for layer in found.layers}
    scores, values = by_name["matmul"], by_name["matmul:2"]
    assert (scores.groups, scores.rows, scores.inputs, scores.outputs) == (2, 6, 8, 6)
    assert (values.groups, values.rows, values.inputs, values.outputs) == (2, 6, 6, 8)
    assert values.sources == ("softmax", "qkv")
    assert found.matmul_macs == 2 * (2 * 6 * 6 * 8)
    assert by_name["qkv"].rows == 6
    assert by_name["add"].kept == 96
    assert by_name["head"].shares == "words"  # tied
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.macs == 6 * (16 * 48 + 16 * 16 + 16 * 50) + found.matmul_macs


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_attention_of_torch_nn(device: str) -> None:
    """One operation of torch, or several: the products are the same."""
    with torch.device(device):
        block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        found = workload_of_model(block, torch.rand(1, 6, 16))
    assert found.matmul_macs == 2 * (2 * 6 * 6 * 8)
    linears = [layer for layer in found.layers if layer.op == "linear"]
    assert [layer.name for layer in linears] == [
        "self_attn.in_proj_weight", "self_attn.out_proj", "linear1", "linear2"
    ]  # fmt: skip
    assert [layer.weights for layer in linears] == [768, 256, 512, 512]
    assert sum(layer.op == "softmax" for layer in found.layers) == 1
    assert found.parameters == sum(p.numel() for p in block.parameters())
    assert torch.backends.mha.get_fastpath_enabled()


class Twice(nn.Module):
    """A module that runs again, weights that a function uses, and a product from the left."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.matrix = nn.Parameter(torch.zeros(8, 8))
        self.left = nn.Parameter(torch.zeros(5, 3))
        self.experts = nn.Parameter(torch.zeros(2, 8, 4))

    def forward(self, x: Tensor, *, again: bool) -> Tensor:
        x = self.fc(x)
        if again:
            x = self.fc(x)
        x = F.linear(x, self.matrix) @ self.matrix
        x = torch.mm(self.left, x)
        return torch.bmm(x.expand(2, 5, 8), self.experts)


def test_modules_that_run_twice_and_functional_calls() -> None:
    model = Twice()
    found = workload_of_model(model, {"x": torch.rand(3, 8), "again": True})
    rows = [(x.name, x.shares, x.rows, x.outputs, x.inputs) for x in found.layers]
    assert rows == [
        ("fc", "", 3, 8, 8),
        ("fc:2", "fc", 3, 8, 8),
        ("matrix", "", 3, 8, 8),
        ("matrix:2", "matrix", 3, 8, 8),
        ("left", "", 8, 5, 3),  # eight columns
        ("experts", "", 5, 4, 8),
        ("experts:2", "", 5, 4, 8),
    ]
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert len(workload_of_model(model, {"x": torch.rand(3, 8), "again": False}).layers) == 6


def test_compressed_model_is_the_same_workload() -> None:
    def model() -> nn.Module:
        return nn.Sequential(nn.Conv2d(4, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 16))

    compressed = model()
    vq.compress_(compressed, vq.Recipe({"*": vq.SSVQ(d=4, k=16)}), progress=False)
    sample = torch.rand(1, 4, 8, 8)
    want, found = (workload_of_model(m, sample).layers for m in (model(), compressed))
    assert listed(Workload("x", found)) == [("0", "conv2d"), ("3", "linear")]
    for a, b in zip(want, found, strict=True):
        assert (a.weight_shape, a.positions, a.sources) == (b.weight_shape, b.positions, b.sources)


class NormedLinear(nn.Module):
    """One module that does both, with a scale that it computes from rows."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 8))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x / x.pow(2).mean(-1, keepdim=True).sqrt(), self.weight)


def test_products_inside_a_norm_are_not_hidden() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.RMSNorm(8), NormedLinear())
    found = workload_of_model(model, torch.rand(3, 8))
    assert [layer.op for layer in found.layers] == ["linear", "norm", "norm", "linear"]
    assert found.macs == 3 * (64 + 32)
    assert found.layers[1].kept == 8
    assert found.parameters == sum(p.numel() for p in model.parameters())


class Signal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 8, 5, stride=2, padding=2)
        self.norm = nn.GroupNorm(2, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        return (x * torch.sigmoid(x)).mean(-1)


def test_one_axis() -> None:
    found = workload_of_model(Signal(), torch.rand(1, 2, 20))
    assert listed(found) == [
        ("conv", "conv1d"), ("norm", "norm"), ("activation", "activation"), ("mul", "mul"),
        ("avgpool", "avgpool"),
    ]  # fmt: skip
    assert found.layers[0].weight_shape == (8, 2, 5)
    assert {(x.inputs, x.height, x.width) for x in found.layers[1:]} == {(8, 10, 1)}


class Fails(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("no such luck\nsecond line")


@pytest.mark.parametrize(
    ("model", "sample", "message"),
    [
        (Fails(), torch.rand(1), r"^Fails: must run on the sample, but no such luck$"),
        (nn.Linear(4, 4), torch.rand(1, 5), r"^Linear: must run on the sample, but mat1 and mat2"),
        (nn.ReLU(), torch.rand(1, 5), "a layer with weights must run on the sample, but none did"),
        (
            nn.Sequential(nn.ConvTranspose2d(3, 3, 2), nn.Conv2d(3, 4, 1)),
            torch.rand(2, 3, 4, 4),
            r"^Sequential as a workload has 2 problems:\n- layer '0': must not be a transposed "
            r"convolution\n- layer '1': sample must hold one image, not 2$",
        ),
        (nn.LSTM(3, 4), torch.rand(5, 1, 3), r"layer '': must show its products, not hide them"),
    ],
)
def test_what_cannot_be_traced_is_refused(model: nn.Module, sample: Tensor, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        workload_of_model(model, sample)
