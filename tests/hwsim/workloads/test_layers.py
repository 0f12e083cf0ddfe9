"""Layers and workloads: what follows from shapes, and what they refuse."""

import pytest

from hwsim.workloads import Workload, WorkloadLayer
from vq.container import ConfigError

CONV = WorkloadLayer(
    "conv", "conv2d", 16, 32, height=15, width=9, kernel=(3, 5), stride=(2, 1),
    padding=((1, 0), (2, 2)), dilation=(2, 1), groups=4, kept=32,
)  # fmt: skip


def test_what_follows_from_the_shapes_of_a_convolution() -> None:
    # Rows: 15 + 1 = 16 padded, the kernel reaches 5: (16 - 5) // 2 + 1. Columns: 13 - 5 + 1.
    assert (CONV.out_height, CONV.out_width, CONV.positions) == (6, 9, 54)
    assert CONV.weight_shape == (32, 4, 3, 5)
    assert CONV.weights == 32 * 4 * 15
    assert CONV.parameters == CONV.weights + 32
    assert CONV.macs == CONV.weights * 54
    assert (CONV.input_bytes, CONV.output_bytes) == (16 * 15 * 9, 32 * 54)
    assert CONV.activation_bytes == CONV.input_bytes + CONV.output_bytes


def test_what_follows_from_the_shapes_of_others() -> None:
    linear = WorkloadLayer("fc", "linear", 40, 10, rows=7)
    assert (linear.macs, linear.input_bytes, linear.output_bytes) == (2800, 280, 70)
    matmul = WorkloadLayer("scores", "matmul", 64, 50, rows=7, groups=3)
    assert (matmul.weights, matmul.macs) == (0, 3 * 7 * 64 * 50)
    assert (matmul.input_bytes, matmul.output_bytes) == (3 * (7 * 64 + 64 * 50), 3 * 7 * 50)
    add = WorkloadLayer("add", "add", 8, 8, height=5, width=4)
    assert (add.macs, add.input_bytes, add.output_bytes) == (0, 2 * 160, 160)
    embedding = WorkloadLayer("words", "embedding", 1000, 8, rows=5)
    assert (embedding.weights, embedding.macs, embedding.activation_bytes) == (8000, 0, 40)
    signal = WorkloadLayer("wave", "conv1d", 2, 3, height=10, kernel=(4, 1))
    assert (signal.weight_shape, signal.positions) == ((3, 2, 4), 7)


def test_all_problems_of_a_layer_are_in_one_error() -> None:
    with pytest.raises(ConfigError) as error:
        WorkloadLayer("", "conv", 0, True, rows=-1, kernel=(3,), padding=(1, 1))  # type: ignore[arg-type]
    assert str(error.value).startswith("workload layer '' has 7 problems:")
    for text in (
        "name must be non-empty text, not ''",
        "op must be one of linear, conv1d, conv2d, embedding, ",
        "inputs must be a whole number from 1, not 0",
        "outputs must be a whole number from 1, not True",
        "rows must be a whole number from 1, not -1",
        "kernel must be two whole numbers from 1, not (3,)",
        "padding must be ((top, bottom), (left, right)), not (1, 1)",
    ):
        assert text in str(error.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"op": "linear", "kernel": (3, 3)}, "kernel, stride, padding and dilation must be left"),
        ({"op": "linear", "height": 4}, "height and width must be left out of linear; it has rows"),
        ({"op": "conv2d", "rows": 4}, "rows must be 1 for conv2d, not 4"),
        ({"op": "conv2d", "groups": 3}, "groups must divide inputs = 8 and outputs = 8, not 3"),
        ({"op": "linear", "groups": 2}, "groups must be 1 for linear, not 2"),
        ({"op": "add", "outputs": 4}, "outputs must be inputs = 8 for add, not 4"),
        (
            {"op": "conv2d", "kernel": (3, 3), "dilation": (1, 2), "height": 4, "width": 4},
            r"kernel must fit the padded input \(4, 4\), not reach \(3, 5\)",
        ),
        ({"op": "conv1d", "width": 4}, "width and horizontal kernel must be 1 for conv1d"),
        ({"op": "add", "shares": "y"}, "shares must be empty for add"),
        ({"op": "linear", "count": 3}, r"name must hold \{\} exactly if count is above 1, not 'x'"),
        ({"op": "linear", "name": "{}"}, r"not '\{\}' with count 1"),
        ({"op": "linear", "name": "{}", "count": 2**20}, "count must be at most 65536"),
    ],
)
def test_contradictions_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WorkloadLayer(**({"name": "x", "inputs": 8, "outputs": 8} | fields))


def test_repetitions() -> None:
    def linear(name: str, count: int = 1, **fields: object) -> WorkloadLayer:
        return WorkloadLayer(name, "linear", 8, 8, rows=2, count=count, **fields)  # type: ignore[arg-type]

    workload = Workload(
        "net",
        (
            linear("first"),
            linear("a.{}.x", 3, kept=5),
            linear("a.{}.y", 3, sources=("a.{}.x", "first")),
            linear("b.{}.x", 3),
            linear("b.{}.y", 3, shares="b.{}.x"),
        ),
    )
    expanded = workload.expanded()
    assert [layer.name for layer in expanded.layers] == [
        "first", "a.0.x", "a.0.y", "a.1.x", "a.1.y", "a.2.x", "a.2.y",
        "b.0.x", "b.0.y", "b.1.x", "b.1.y", "b.2.x", "b.2.y",
    ]  # fmt: skip
    assert expanded.layers[4].sources == ("a.1.x", "first")
    assert expanded.layers[-1].shares == "b.2.x"
    assert {layer.count for layer in expanded.layers} == {1}
    for one in (workload, expanded):
        assert one.macs == 13 * 128
        assert one.weights == 10 * 64
        assert one.parameters == 10 * 64 + 15
        assert one.activation_bytes == 13 * 32
    assert [layer.name for layer in workload.once().layers] == [
        "first", "a.0.x", "a.0.y", "b.0.x", "b.0.y"
    ]  # fmt: skip


def test_all_problems_of_a_workload_are_in_one_error() -> None:
    layers = (
        WorkloadLayer("a", "linear", 8, 8, sources=("b",)),
        WorkloadLayer("a", "linear", 8, 8),
        WorkloadLayer("n.{}", "linear", 8, 8, count=2),
        WorkloadLayer("n.1", "linear", 8, 8, sources=("n.{}",)),
        WorkloadLayer("b", "linear", 8, 4, shares="a"),
        WorkloadLayer("c", "linear", 8, 4, shares="d"),
    )
    with pytest.raises(ConfigError) as error:
        Workload("net", layers)
    assert str(error.value) == (
        "workload 'net' has 6 problems:\n"
        "- layer 'a': source must be a layer before it, alone or in the same block, not 'b'\n"
        "- layer 'n.1': source must be a layer before it, alone or in the same block, not 'n.{}'\n"
        "- layer 'b': weights must be of shape [8, 8] like those of 'a', not [4, 8]\n"
        "- layer 'c': shares must be a layer before it, alone or in the same block with weights "
        "of its own, not 'd'\n"
        "- layer 'a' must appear once, not 2 times\n"
        "- layer 'n.1' must appear once, not 2 times"
    )
    with pytest.raises(ConfigError, match="layers must be at least one, not none"):
        Workload("net", ())
