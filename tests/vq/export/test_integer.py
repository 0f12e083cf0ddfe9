"""Integer graphs as ONNX: in onnxruntime every node is the integer arithmetic's."""

import platform
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import vq
from tests.vq.integer.models import GROUPED, RECIPES, SHAPES, Small, Wave, stored
from vq import Int4, Int8, Recipe
from vq.container import ContainerError, open_container
from vq.errors import ConfigError
from vq.export import export_integer
from vq.export.integer import _check, _Writer
from vq.export.runtime import session
from vq.integer import add_integer, read_integer

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

#: On x86 without VNNI, fused products of onnxruntime add up in 16 bits (docs/exports.md).
SATURATES = platform.machine() == "x86_64" and "vnni" not in Path("/proc/cpuinfo").read_text()
FUSED = pytest.mark.skipif(SATURATES, reason="onnxruntime saturates: no VNNI on this processor")


class Tokens(nn.Module):
    """Features last, behind an axis of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)))


def check(path, out, shape, *, fused, opset=20):
    """Export, and compare at three batch sizes with the integer arithmetic."""
    document = export_integer(path, out, opset=opset)
    with open_container(path) as container:
        model = read_integer(container)
    run = session("graph", out.read_bytes(), fused=fused)
    for batch in (1, 3, 40):
        x = np.random.default_rng(batch).random((batch, *shape)).astype(np.float32)
        want = model.dequantize(model.run(model.quantize(x)))
        (found,) = run({"input": x})
        assert found.shape == want.shape
        assert np.array_equal(found, want)
    return document


@pytest.mark.parametrize(
    "fused",
    [pytest.param(False, id="as defined"), pytest.param(True, id="fused", marks=FUSED)],
)
@pytest.mark.parametrize("recipes", [RECIPES, GROUPED], ids=["plain", "grouped"])
@pytest.mark.parametrize("kind", [Small, Wave])
def test_outputs_are_those_of_the_integer_arithmetic(tmp_path, kind, recipes, fused):
    path, _, _ = stored(kind, tmp_path, recipe=recipes[kind])
    document = check(path, tmp_path / "x.onnx", SHAPES[kind], fused=fused)
    assert document["opset"] == 20
    assert document["inputs"] == [
        {"name": "input", "dtype": "float32", "shape": ["batch", *SHAPES[kind]]}
    ]
    assert document["outputs"][0]["name"] == "output"
    assert document["checked"] == {"batches": [1, 2, 5], "max_difference": 0.0, "max_steps": 0}
    assert set(document["int8_layers"]) == {
        name for name, m in kind().named_modules() if hasattr(m, "weight") and "bn" not in name
    }


@pytest.mark.parametrize("recipe", [Int8(), Int4(group=3, zeros=True)])
@pytest.mark.parametrize("opset", [18, 23])
def test_linears_behind_an_axis_of_positions(tmp_path, recipe, opset):
    torch.manual_seed(0)
    model, path = Tokens(), tmp_path / "x.vq.safetensors"
    vq.compress_(model, Recipe({"*": recipe}))
    vq.save(model, path)
    add_integer(path, Tokens(), [torch.rand(8, 5, 6)])
    check(path, tmp_path / "x.onnx", (5, 6), fused=not SATURATES, opset=opset)
    onnx.checker.check_model(onnx.load(tmp_path / "x.onnx"), full_check=True)


def test_weights_are_int8_and_their_scales_positive(tmp_path):
    """Norms of both signs turn the weights, and not the scales."""
    path, _, model = stored(Small, tmp_path)
    assert (model.parameters["stem"].multiplier < 0).any()
    export_integer(path, tmp_path / "x.onnx")
    proto = onnx.load(tmp_path / "x.onnx")
    found = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    for name, p in model.parameters.items():
        if p.weight.size:
            sign = np.sign(p.multiplier).reshape(-1, *[1] * (p.weight.ndim - 1))
            assert np.array_equal(found[f"{name}.weight.int"], p.weight * sign)
            assert found[f"{name}.weight.int"].dtype == np.int8
            assert found[f"{name}.weight.scale"].min() > 0


def test_a_weight_of_minus_128_keeps_its_sign(tmp_path):
    _, _, model = stored(Small, tmp_path)
    p = model.parameters["stem"]
    row = int(np.flatnonzero(p.multiplier < 0)[0])
    weight = p.weight.copy()
    weight[row].flat[0] = -128
    changed = replace(model, parameters={**model.parameters, "stem": replace(p, weight=weight)})
    proto = _Writer(changed).proto(20)
    found = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    assert found["stem.weight.int"][row].flat[0] == -128
    assert found["stem.weight.scale"][row] < 0
    _check("graph", changed, proto.SerializeToString(), 20)


def test_a_node_that_differs_is_named_and_nothing_is_written(tmp_path, monkeypatch):
    path, _, _ = stored(Wave, tmp_path)
    monkeypatch.setattr(
        _Writer, "_relu", lambda self, node: self._quantize(node, self._real(node), 1.0)
    )
    message = r"^integer graph of \S+: node 'relu\S*' must give in onnxruntime what .* to one step"
    with pytest.raises(ConfigError, match=message):
        export_integer(path, tmp_path / "x.onnx")
    assert not (tmp_path / "x.onnx").exists()


def test_files_without_a_graph_and_opsets_out_of_range_are_refused(tmp_path):
    path, _, _ = stored(Wave, tmp_path)
    with pytest.raises(ConfigError, match=r"^opset must be 18 to 23, not 13$"):
        export_integer(path, tmp_path / "x.onnx", opset=13)
    model = Wave()
    vq.compress_(model, RECIPES[Wave])
    vq.save(model, path)
    with pytest.raises(ContainerError, match="must hold an integer graph, not none"):
        export_integer(path, tmp_path / "x.onnx")
    assert not (tmp_path / "x.onnx").exists()


@pytest.mark.slow
def test_a_deep_network_stays_within_steps(tmp_path):
    """Nodes differ where rounding is near a tie; what this grows to through 20 layers."""
    from signbook.zoo.resnet import resnet20

    torch.manual_seed(0)
    model = resnet20().train()
    with torch.no_grad():
        for _ in range(10):
            model(torch.rand(32, 3, 32, 32))
    path = tmp_path / "x.vq.safetensors"
    vq.compress_(model.eval(), Recipe({"*": Int8()}))
    vq.save(model, path)
    add_integer(path, resnet20(), [torch.rand(32, 3, 32, 32)])
    document = export_integer(path, tmp_path / "x.onnx")
    assert document["checked"]["max_steps"] <= 4
    assert (tmp_path / "x.onnx").stat().st_size < path.stat().st_size
