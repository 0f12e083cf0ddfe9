"""Examples in the documents and docstrings run, and what they promise is true."""

import doctest
import importlib
import pydoc
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md"),
    *("examples/README.md", "tests/golden/README.md"),
    *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").glob("*.md")),
]
PACKAGES = ("vq", "rescomp", "rtl", "hwsim", "signbook")
#: The log is dated and the changelog tells what was: both may name what is gone.
PRESENT = [d for d in DOCUMENTS if d not in ("CHANGELOG.md", "docs/log.md")]
WITH_DOCTESTS = [
    path.relative_to(ROOT)
    for package in ("vq", "rtl", "hwsim", "signbook")
    for path in sorted((ROOT / package).rglob("*.py"))
    if ">>> " in path.read_text()
]


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if d != "CONTRIBUTING.md"])
def test_python_examples_run(document, tmp_path, monkeypatch):
    """Those of CONTRIBUTING need its patches: see ``test_contributing.py``.

    Blocks of one document share their names, as a reader would type them one after another.
    """
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```", (ROOT / document).read_text(), re.S | re.M):
        exec(compile(block, document, "exec"), names)


@pytest.mark.parametrize("path", WITH_DOCTESTS, ids=str)
def test_docstring_examples_run(path):
    name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0 and result.failed == 0


def anchors(path: Path) -> set[str]:
    """Anchors that a code host gives the headings of a document."""
    prose = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.S | re.M)
    titles = re.findall(r"^#+ (.*)$", prose, re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_between_documents_lead_somewhere(document):
    path = ROOT / document
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if target.startswith(("http:", "https:")):
            continue
        name, _, anchor = target.partition("#")
        place = path.parent / name if name else path
        assert place.exists(), f"{document}: {target}"
        assert not anchor or anchor in anchors(place), f"{document}: {target}"


def named(document: str) -> str:
    """The text that can name things of ours: no addresses, and no blocks that tests run anyway."""
    text = (ROOT / document).read_text()
    return re.sub(r"https?://\S+|^```(python|diff)\n.*?^```", "", text, flags=re.S | re.M)


@pytest.mark.parametrize("document", PRESENT)
def test_paths_named_in_documents_exist(document):
    folders = (*PACKAGES, "bench", "docs", "examples", "tests")
    path = rf"(?<![\w./])(?:{'|'.join(folders)})/[\w./-]*\w/?"
    for found in re.findall(path, named(document)):
        if "NAME" not in found:
            assert (ROOT / found).exists(), f"{document}: {found}"


@pytest.mark.parametrize("document", PRESENT)
def test_names_in_documents_exist(document):
    """Dotted names of ours, but not files (``rescomp.py``) or schemas (``signbook.sweep/1``)."""
    name = rf"(?<![\w./:])(?:{'|'.join(PACKAGES)})(?:\.[A-Za-z_]\w*)+(?![/\w.])"
    for found in set(re.findall(name, named(document))):
        if not found.endswith((".py", ".json", ".safetensors")):
            assert pydoc.locate(found) is not None, f"{document}: {found}"


def test_modules_that_moved_are_where_the_changelog_says():
    moved = re.findall(
        r"^\| `([\w.]+)` \| `([\w.]+)` \|$", (ROOT / "CHANGELOG.md").read_text(), re.M
    )
    assert len(moved) > 30
    for old, new in moved:
        assert pydoc.locate(new) is not None, f"{old} to {new}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_make_targets_named_in_documents_exist(document):
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make ([a-z-]+)`", (ROOT / document).read_text()):
        assert re.search(rf"^{target}:", makefile, re.M), f"{document}: make {target}"
