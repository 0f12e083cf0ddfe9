"""The examples of the specification run, and its tables agree with the code."""

import re
from pathlib import Path

import pytest

from vq.container import Geometry, open_container
from vq.container.constants import DTYPE_BYTES, METHODS, OPS
from vq.container.header import parse_header
from vq.container.metadata import _KEYS

SPEC = (Path(__file__).parents[3] / "docs" / "spec-vqstream-1.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", SPEC, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_example_runs(block: str):
    exec(compile(block, "docs/spec-vqstream-1.md", "exec"), {})


def test_there_are_examples():
    assert len(BLOCKS) >= 2


def section(number: int) -> str:
    return SPEC.split(f"\n## {number}. ")[1].split("\n## ")[0]


def test_every_field_and_key_is_specified():
    documented = re.findall(r"^\| `(\w+)` \|", section(2), re.MULTILINE)
    fields = Geometry("a", "linear", (1, 1), "int8").to_json()
    assert sorted(documented) == sorted([*_KEYS, *fields])


def test_every_name_is_specified():
    for name in (*DTYPE_BYTES, *METHODS, *OPS):
        assert re.search(rf"[`, ]{name}[`, ]", SPEC), name


def test_canonical_json_as_specified(small: Path):
    metadata = parse_header(memoryview(small.read_bytes())).metadata
    for key in ("geometry", "sha256"):
        text = metadata[key]
        assert text.isascii()
        assert " " not in text
    with open_container(small) as file:
        assert len(file.layers) == 7
