"""What ``docs/stability.md`` promises: every release's files are read, every schema is listed."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from torch import nn

import vq
from signbook.report import render_report
from signbook.reporting.documents import read_document
from tests.golden import release
from tests.golden.make import write_remaining, write_timed, write_turns
from tests.golden.models import every_method, network
from vq.activations.runtime import runtime_tensors
from vq.container import open_container
from vq.container.constants import LAYOUTS
from vq.inference.decode import decode_weight
from vq.version import TOOL, VERSION

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "stability.md").read_text()
RELEASES = sorted(path.name for path in release.RELEASES.iterdir())
FILES = [(version, name) for version in RELEASES for name in release.files_of(version)]


def test_every_release_of_the_changelog_has_its_files():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert re.findall(r"^## \[([\d.]+)\] - \d", changelog, re.M)[::-1] == RELEASES
    for version in RELEASES:
        files = {path.name for path in (release.RELEASES / version).iterdir()}
        assert files == {"facts.json", *release.files_of(version), *release.DOCUMENTS}


def skeleton(facts):
    """A model that a container of a release fits."""
    if "outputs" in facts:
        return network()
    if "parts" not in facts and "calls" not in facts:
        return every_method()
    linears = {name: nn.Linear(8, 4, bias=False) for name in facts["weights"]}
    others = ("attention", "project", "modulate", "time")
    return nn.ModuleDict(linears | {name: nn.Identity() for name in others})


def read_to_the_bit(path, version, facts):
    assert release.facts_of(path) == facts
    with open_container(path) as container:
        container.verify()
        assert container.provenance.tool == f"signbook {version}"
        for layer, digest in facts["weights"].items():
            decoded = np.ascontiguousarray(decode_weight(container, layer).numpy())
            assert hashlib.sha256(decoded.tobytes()).hexdigest() == digest, layer
    model = vq.load(path, into=skeleton(facts))
    for layer, digest in facts["weights"].items():
        weight = model.get_submodule(layer).weight.detach().contiguous().numpy()
        assert hashlib.sha256(weight.tobytes()).hexdigest() == digest, layer
    remains = {name: release.digest(one.data) for name, one in runtime_tensors(model).items()}
    assert remains == facts.get("parts", {})


@pytest.mark.parametrize(("version", "name"), FILES)
def test_containers_of_releases_are_read_to_the_bit(version, name):
    path = release.RELEASES / version / name
    read_to_the_bit(path, version, json.loads((path.parent / "facts.json").read_text())[name])


@pytest.mark.parametrize(
    ("name", "write", "tensors"),
    [("parts", write_remaining, 10), ("steps", write_timed, 8), ("turns", write_turns, 0)],
)
def test_the_next_release_has_what_it_can_have_first(name, write, tensors, tmp_path):
    assert release.files_of(VERSION) == [*release.FILES]
    path = tmp_path / f"{name}.vq.safetensors"
    write(path, TOOL)
    facts = release.facts_of(path)
    assert len(facts.get("parts", {})) == tensors
    assert len(facts.get("calls", {})) == (4 if name == "turns" else 0)
    read_to_the_bit(path, VERSION, facts)


@pytest.mark.parametrize("version", RELEASES)
def test_documents_of_releases_are_reported(version):
    paths = [release.RELEASES / version / name for name in release.DOCUMENTS]
    page = render_report([(path.name, read_document(path)) for path in paths])
    cycles = json.loads(paths[0].read_text())["runs"]["compressed"]["cycles"]
    assert f"{cycles:,}" in page


def test_every_schema_and_layout_of_the_code_is_promised():
    folders = ("vq", "rescomp", "rtl", "hwsim", "signbook", "bench")
    sources = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    text = "\n".join(path.read_text() for path in sources)
    written = set(re.findall(r"signbook\.[a-z-]+/\d+", text))
    listed = re.findall(r"^\| `(signbook\.[a-z-]+/\d+)` \|", PAGE, re.M)
    assert len(listed) == len(set(listed)) and set(listed) == written
    assert re.findall(r"^\| \[`(vqstream/\d+)`\]", PAGE, re.M) == list(LAYOUTS)
