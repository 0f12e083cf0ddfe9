"""Graphs of tokens as text: canonical, and refused at the field that is wrong."""

import json

import pytest

from tests.vq.integer.tokens.models import stored
from vq.container import ContainerError, open_container
from vq.integer.tokens import TokenGraph


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    found = {}
    for name in ("llama", "vision", "encoder"):
        path, _, model = stored(name, tmp_path_factory.mktemp(name))
        with open_container(path) as file:
            layers = {entry.geometry.name: entry.geometry for entry in file.layers}
        found[name] = model.graph, layers
    return found


def test_a_graph_is_its_text(cases):
    for graph, layers in cases.values():
        assert TokenGraph.from_json(graph.to_json(), layers) == graph


def test_rows_and_causality_follow_from_nodes(cases):
    llama, vision, encoder = (cases[name][0] for name in ("llama", "vision", "encoder"))
    assert llama.causal and not vision.causal and not encoder.causal
    assert llama.rows()[llama.output.name] is None
    assert set(vision.rows().values()) == {0, 16, 17, 1}
    assert encoder.rows()[encoder.output.name] == 1


def changed(graph, layers, whose, **fields):
    found = json.loads(graph.to_json())
    node = next(one for one in found["nodes"] if one["name"] == whose)
    settings = fields.pop("settings", {})
    node.update(fields)
    node["settings"].update(settings)
    TokenGraph.from_json(json.dumps(found), layers)


ATTENTION = "blocks.0.attn.attention"


@pytest.mark.parametrize("name,fields,message", [
    ("blocks.0.add", {"op": "cumsum"}, "'blocks.0.add': op must be one of"),
    ("blocks.0.add", {"op": "tokens"}, "input in the first node only"),
    ("blocks.0.add", {"name": "embed"}, "name must be unique"),
    ("blocks.0.add", {"inputs": ["embed", "linear"]}, "names of earlier nodes"),
    ("blocks.0.add", {"inputs": ["embed"]}, "inputs must be 2 names"),
    ("blocks.0.add", {"form": "rows"}, "form must be one of int8, int16"),
    ("blocks.0.add", {"shape": [17]}, r"shape must be \[16\]"),
    ("blocks.0.add", {"layer": "blocks.0.attn.wo"}, "layer must be empty"),
    ("blocks.0.add", {"settings": {"rows": 3}}, "settings must be exactly"),
    ("blocks.0.add", {"inputs": ["embed", "blocks.0.attn.wk"]}, "inputs must be of one shape"),
    ("blocks.0.attn.wo", {"form": "int32"}, "form must be one of int8, int16, not 'int32'"),
    ("blocks.0.add", {"form": "int32"}, "inputs must be int8 or int16, not 'blocks.0.add: int32'"),
    ("blocks.0.add", {"inputs": ["tokens", "embed"]}, "inputs must be of values"),
    ("blocks.0.attn.wo", {"layer": "nothing"}, "layer must be a layer of the file"),
    ("blocks.0.attn.wo", {"layer": "blocks.0.ffn.w2"}, "a linear of 16 inputs"),
    ("blocks.0.attn.wo", {"settings": {"table": "embed"}}, "a layer of the file, or a table"),
    ("linear", {"settings": {"table": "blocks.0.add"}}, "a table of 16 channels"),
    (ATTENTION, {"settings": {"heads": 3}}, "heads that share 16 channels"),
    (ATTENTION, {"settings": {"kv_heads": 4}}, "keys and values of 4 heads"),
    (ATTENTION, {"settings": {"shares": "int8"}}, "shares of rows or int16"),
    (ATTENTION, {"settings": {"causal": 1}}, "settings must be exactly"),
    (ATTENTION, {"inputs": ["blocks.0.attn.rotary", "blocks.0.attn.wk", "blocks.0.attn.wv"]},
     "inputs must be int8"),
    ("blocks.0.attn.rotary", {"settings": {"pairs": "thirds"}}, "settings must be pairs"),
    ("blocks.0.attn.rotary", {"settings": {"heads": 3}}, "heads of 4 channels"),
    ("blocks.0.attn.angles", {"settings": {"rows": 0}}, "settings must be rows"),
    ("blocks.0.attn.angles", {"settings": {"rows": 7}}, "of equally many rows"),
])  # fmt: skip
def test_wrong_nodes_of_a_text_are_refused(cases, name, fields, message):
    with pytest.raises(ContainerError, match=message):
        changed(*cases["llama"], name, **fields)


@pytest.mark.parametrize("name,fields,message", [
    ("blocks.0.norm1.place", {"settings": {"before": 0}}, "settings must be at least 1"),
    ("blocks.0.norm1.place", {"form": "int16"}, "inputs must be int16"),
    ("blocks.0.norm1.places", {"inputs": ["input"]}, "shape must be"),
    ("blocks.0.attn.slice", {"settings": {"start": 20}}, "a part of 24 channels"),
    ("norm.select", {"settings": {"row": 17}}, "a row that there is"),
    ("blocks.0.norm1.layer_norm", {"inputs": ["stem.2"]}, "of 1 axes"),
])  # fmt: skip
def test_wrong_nodes_of_an_image_are_refused(cases, name, fields, message):
    with pytest.raises(ContainerError, match=message):
        changed(*cases["vision"], name, **fields)


def test_a_mean_must_leave_rows(cases):
    with pytest.raises(ContainerError, match="a first row of 0 to 0"):
        changed(*cases["encoder"], "mean", settings={"first": 1})


@pytest.mark.parametrize("fields,message", [
    ({"version": 3}, "version must be 4, not '3'"),
    ({"context": 0}, "context must be 1 to 65536"),
    ({"context": "much"}, "context must be an integer"),
    ({"choice": "best"}, "choice must be one of"),
    ({"calibration": "0"}, "calibration must be a sha256"),
    ({"nodes": {}}, "nodes must be a list"),
    ({"nodes": []}, "must hold 2 to"),
    ({"more": 1}, "must have exactly"),
])  # fmt: skip
def test_wrong_graphs_are_refused(cases, fields, message):
    graph, layers = cases["llama"]
    with pytest.raises(ContainerError, match=message):
        TokenGraph.from_json(json.dumps(json.loads(graph.to_json()) | fields), layers)


@pytest.mark.parametrize("row", [{"op": "add"}, {"op": "add", "name": 3}, {"op": "conv"}])
def test_nodes_that_lack_fields_are_refused(cases, row):
    graph, layers = cases["llama"]
    found = json.loads(graph.to_json())
    found["nodes"][3] = row
    with pytest.raises(ContainerError, match=r"must have exactly|must be an object with a name"):
        TokenGraph.from_json(json.dumps(found), layers)


def test_the_output_must_be_rows_of_numbers(cases):
    graph, layers = cases["vision"]
    found = json.loads(graph.to_json())
    found["nodes"] = found["nodes"][:2]
    with pytest.raises(ContainerError, match="op must be one that gives rows"):
        TokenGraph.from_json(json.dumps(found), layers)
