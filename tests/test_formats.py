"""Which format a layer has is known where formats live, and asked nowhere else."""

import ast

import pytest

from tests.test_architecture import modules, within
from vq.formats.registry import FORMATS

#: Folders that know formats: what is stored, how it is made, read and decoded.
KNOW_FORMATS = ("vq/formats", "vq/container", "vq/inference", "rtl")
#: Classes of formats and of their weights, which nobody else tells apart.
KINDS = {home.rpartition(":")[2] for home in FORMATS.values()} | {
    "CodebookWeight",
    "PlainVQ",
    "ScalarWeight",
    "SignSplit",
}


def asks_for_formats(node: ast.AST) -> bool:
    """Whether code goes by which format something has, instead of asking it for what it needs."""
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        attributes = {x.attr for x in sides if isinstance(x, ast.Attribute)}
        if isinstance(node.ops[0], ast.In | ast.NotIn):
            sides = node.comparators  # whether a mapping has a key is no question of a format
        texts = {x.value for s in sides for x in ast.walk(s) if isinstance(x, ast.Constant)}
        names = {x.id for x in ast.walk(node) if isinstance(x, ast.Name)}
        kinds = "type" in names and names & KINDS
        return bool("method" in attributes or texts & FORMATS.keys() or kinds)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        names = {x.id for part in node.args for x in ast.walk(part) if isinstance(x, ast.Name)}
        return node.func.id in ("isinstance", "issubclass") and bool(names & KINDS)
    return isinstance(node, ast.MatchClass) and ast.unparse(node.cls) in KINDS


def test_only_formats_know_formats():
    asking = [
        f"{file}:{node.lineno}"
        for name, file in modules().items()
        if not any(within(name, folder) for folder in KNOW_FORMATS)
        for node in ast.walk(ast.parse(file.read_text()))
        if asks_for_formats(node)
    ]
    assert not asking


@pytest.mark.parametrize(
    ("code", "asks"),
    [
        ("g.method == 'int8'", True),
        ("layer.method not in SCALAR", True),
        ("method != 'ssvq'", True),
        ("name in ('vq', 'int4')", True),
        ("isinstance(layer.format, SSVQ | VQ)", True),
        ("isinstance(weight, (SignSplit, int))", True),
        ("type(rule) is Int8", True),
        ("'int8' in runs", False),
        ("isinstance(rule, Format)", False),
        ("g.k > 0 and not g.group", False),
        ("{'method': g.method}", False),
    ],
)
def test_what_asks_for_formats(code, asks):
    assert any(map(asks_for_formats, ast.walk(ast.parse(code)))) == asks
