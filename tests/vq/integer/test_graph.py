"""The data model: shapes that follow from inputs, and JSON that comes back equal."""

import pytest

from vq.container import ContainerError, Geometry
from vq.integer import Graph, Node

LAYERS = {
    "conv": Geometry("conv", "conv2d", (6, 4, 3, 2), "int8", scales=6),
    "odd": Geometry("odd", "conv2d", (3, 4, 1, 1), "int8", scales=3),
    "fc": Geometry("fc", "linear_t", (5, 8), "int8", scales=5),
}
WINDOW = {"stride": (2, 1), "padding": ((1, 0), (0, 2)), "dilation": (1, 3)}


def checked(*nodes: Node) -> Graph:
    graph = Graph(nodes)
    graph.check(LAYERS)
    return graph


def test_json_comes_back_equal():
    graph = checked(
        Node("x", "input", (), (8, 7, 9)),
        Node("a", "conv", ("x",), (6, 3, 8), "conv", relu=True, groups=2, **WINDOW),
        Node("b", "shortcut", ("a",), (9, 2, 8), stride=(2, 1), channels=(1, 2)),
        Node("c", "global_avgpool", ("b",), (9, 1, 1)),
        Node("d", "flatten", ("c",), (9,)),
    )
    assert Graph.from_json(graph.to_json(), LAYERS) == graph


def test_linears_work_on_the_last_axis():
    checked(Node("x", "input", (), (3, 8)), Node("y", "linear", ("x",), (3, 5), "fc"))


def test_groups_must_divide_the_outputs():
    plain = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}
    with pytest.raises(
        ContainerError, match="node 'y': groups must be such that 8 channels give 3, not 2"
    ):
        checked(
            Node("x", "input", (), (8, 4, 4)),
            Node("y", "conv", ("x",), (3, 4, 4), "odd", groups=2, **plain),
        )


def test_added_values_must_have_one_shape():
    with pytest.raises(ContainerError, match="node 'y': inputs must be of one shape"):
        checked(
            Node("x", "input", (), (8, 4)),
            Node("f", "flatten", ("x",), (32,)),
            Node("y", "add", ("x", "f"), (8, 4)),
        )
