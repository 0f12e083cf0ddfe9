"""The data model: turns of host and device, and graphs that nobody may run."""

import json
from dataclasses import replace

import pytest

from vq.container import ContainerError, Geometry
from vq.integer.graph import Node
from vq.integer.steps.graph import HostNode, StepGraph

LAYERS = {"fc": Geometry("fc", "linear", (4, 4), "int8", scales=1)}


def host(name, op, *inputs, shape=(4,), **settings):
    return HostNode(name, op, inputs, shape, settings)


def fc(name, source):
    return Node(name, "linear", (source,), (4,), "fc")


GRAPH = StepGraph(
    (
        host("x", "input"),
        host("when", "table", steps=True, classes=False),
        host("x.rounded", "quantize", "x"),
        fc("fc", "x.rounded"),
        host("more", "sum", "fc", "when"),
        host("act", "silu", "more"),
        host("act.rounded", "quantize", "act"),
        fc("fc:2", "act.rounded"),
        Node("res", "add", ("fc", "fc:2"), (4,)),
        host("out", "product", "res", "when"),
    ),
    (900, 50),
)


def test_a_graph_is_read_as_it_was_written():
    text = GRAPH.to_json()
    assert StepGraph.from_json(text, LAYERS) == GRAPH
    assert json.loads(text)["version"] == 3


def test_host_and_device_take_turns():
    names = [[node.name for node in turn] for turn in GRAPH.turns()]
    assert names == [
        ["x", "when", "x.rounded"], ["fc"], ["more", "act", "act.rounded"], ["fc:2", "res"],
        ["out"],
    ]  # fmt: skip


def test_tables_have_rows_for_what_they_go_by():
    told = replace(GRAPH, classes=3)
    table = GRAPH.nodes[1]
    assert told.tensors(table) == {"rows": (2, 1, 4)}
    by_class = replace(table, settings={"steps": False, "classes": True})
    assert told.tensors(by_class) == {"rows": (1, 3, 4)}
    assert told.tensors(GRAPH.nodes[5]) == {}


def with_node(place, **fields):
    nodes = list(GRAPH.nodes)
    nodes[place] = replace(nodes[place], **fields)
    return replace(GRAPH, nodes=tuple(nodes))


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (replace(GRAPH, times=()), "times must be at least one, and differ"),
        (replace(GRAPH, times=(5, 5)), "times must be at least one, and differ"),
        (replace(GRAPH, classes=-1), "classes must be 0 to"),
        (replace(GRAPH, choice="mean"), "choice must be one of"),
        (replace(GRAPH, calibration="0"), "calibration must be a sha256"),
        (replace(GRAPH, nodes=GRAPH.nodes[:1]), "must hold 2 to"),
        (with_node(3, inputs=("x",)), r"'fc': inputs must be int8.*\['x'\]"),
        (with_node(3, op="relu", layer=""), "'fc': op must be one of linear, conv, add"),
        (with_node(3, layer="other"), "'fc': layer must be a layer of the file"),
        (with_node(2, name="x"), "'x': name must be unique"),
        (with_node(2, inputs=("out",)), "'x.rounded': inputs must be names of earlier nodes"),
        (with_node(2, inputs=()), "'x.rounded': inputs must be 1"),
        (with_node(2, shape=(5,)), r"'x.rounded': shape must be \[4\], not \[5\]"),
        (with_node(4, shape=(1, 4)), r"'more': shape must be \[4\]"),
        (with_node(1, shape=(3,)), "'more': inputs must be of shapes that fit"),
        (with_node(1, shape=()), "'when': shape must be 1 to"),
        (with_node(1, settings={"steps": True}), "'when': settings must be exactly"),
        (with_node(1, settings={"steps": 1, "classes": False}), "'when': settings must be exactly"),
        (with_node(1, settings={"steps": True, "classes": True}), "of no classes"),
        (with_node(5, settings={"groups": 2}), "'act': settings must be exactly.*none"),
        (
            with_node(5, op="layer_norm", settings={"axes": 1, "affine": False, "module": "n"}),
            "without a module where not affine",
        ),
        (with_node(1, op="input", settings={}), "op must be input in the first node only"),
    ],
)
def test_what_cannot_run_is_refused(graph, message):
    with pytest.raises(ContainerError, match=message):
        graph.check(LAYERS)


def changed(change):
    found = json.loads(GRAPH.to_json())
    change(found)
    return json.dumps(found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.pop("times"), "must have exactly"),
        (lambda g: g.update(version=True), "version must be 3"),
        (lambda g: g.update(times="1"), "times must be a list of integers"),
        (lambda g: g.update(classes=True), "classes must be an integer"),
        (lambda g: g.update(nodes={}), "nodes must be a list"),
        (lambda g: g["nodes"][1].pop("settings"), "'when': must have exactly"),
        (lambda g: g["nodes"][1].update(more=1), "'when': must have exactly"),
        (lambda g: g["nodes"][1].update(shape=[1.5]), "number like"),
        (lambda g: g["nodes"][1].update(shape=["4"]), "'when': must have exactly"),
        (lambda g: g["nodes"][1].update(op="other"), "field"),
        (lambda g: g["nodes"].append(1), "a node must be an object"),
    ],
)
def test_text_that_nobody_wrote_is_refused(change, message):
    with pytest.raises(ContainerError, match=message):
        StepGraph.from_json(changed(change), LAYERS)
