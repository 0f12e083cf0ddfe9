"""What all ONNX files share: packages, opsets, sizes, and runs in onnxruntime."""

import sys

import numpy as np
import pytest

from vq.errors import ConfigError
from vq.export.runtime import check_opset, check_size, described, need, session


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_package_that_is_absent_is_one_clear_error(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ConfigError,
        match=f"^exporting to ONNX: package '{package}' must be installed, not absent; "
        r"run: pip install 'signbook\[onnx\]'$",
    ):
        need("math", package)


@pytest.mark.parametrize("opset", [17, 24, -1, 0])
def test_opsets_out_of_range_are_refused(opset):
    with pytest.raises(ConfigError, match=f"^opset must be 18 to 23, not {opset}$"):
        check_opset(opset)
    check_opset(18)
    check_opset(23)


def test_weights_of_more_than_a_file_are_refused():
    check_size("Net", 2**31 - 2**24)
    with pytest.raises(
        ConfigError, match=r"^Net: weights must fit the 2 GB of one ONNX file, not be 2130706433 b"
    ):
        check_size("Net", 2**31 - 2**24 + 1)


def identity(shape):
    onnx = pytest.importorskip("onnx")
    make = onnx.helper
    values = [make.make_tensor_value_info(n, onnx.TensorProto.FLOAT, shape) for n in "xy"]
    graph = make.make_graph([make.make_node("Neg", ["x"], ["y"])], "g", values[:1], values[1:])
    return make.make_model(graph, opset_imports=[make.make_opsetid("", 20)], ir_version=10)


def test_a_file_runs_and_says_what_it_takes():
    pytest.importorskip("onnxruntime")
    proto = identity(["batch", 2])
    x = np.ones((3, 2), np.float32)
    (found,) = session("Net", proto.SerializeToString())({"x": x, "unused": x})
    assert np.array_equal(found, -x)
    row = {"name": "x", "dtype": "float32", "shape": ["batch", 2]}
    assert described(proto.graph.input) == [row]


def test_what_onnxruntime_refuses_is_one_error():
    pytest.importorskip("onnxruntime")
    message = (
        r"^Net must run in onnxruntime [\d.]+ once exported, but it raises \w+; try another opset$"
    )
    with pytest.raises(ConfigError, match=message):
        session("Net", b"no model")
    run = session("Net", identity([1, 2]).SerializeToString())
    with pytest.raises(ConfigError, match=message):
        run({"x": np.ones((3, 3), np.float32)})
