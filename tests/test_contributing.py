"""What CONTRIBUTING.md says about adding things is true: its patches apply, and then work."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("vq", "rescomp", "rtl", "hwsim", "signbook")
SECTION = re.compile(r"^## Add (.*?)\n(.*?)(?=^## )", re.S | re.M)
BLOCK = re.compile(r"^```(diff|python)\n(.*?)^```", re.S | re.M)
SECTIONS = dict(SECTION.findall((ROOT / "CONTRIBUTING.md").read_text()))
#: The most files that may have to be touched.
FILES = {"a format": 2, "a rule": 1, "a method": 2, "a memory": 1}


def patches(section: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(section) if kind == "diff"]


def apply(patch: str, root: Path) -> str:
    """Apply a patch to the files below ``root``; return the path of the one it changes.

    ``--- old`` and ``+++ new``, then parts that begin with ``@@``, whose lines begin with a space,
    - or +. Two names make a changed copy, and without ``---`` the file is new.
    """
    head, *parts = re.split(r"^@@\n", patch, flags=re.M)
    old, new = re.search(r"^--- (.*)$", head, re.M), re.search(r"^\+\+\+ (.*)$", head, re.M)
    text = (root / old[1]).read_text() if old else ""
    for part in parts:
        lines = part.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line[0] in " -")
        after = "".join(line[1:] for line in lines if line[0] in " +")
        if before:
            assert text.count(before) == 1, (
                f"{old[1]} has this {text.count(before)} times:\n{before}"
            )
            text = text.replace(before, after)
        else:
            text += after
    (root / new[1]).write_text(text)
    return new[1]


@pytest.fixture(scope="module")
def patched(tmp_path_factory):
    """A copy of the packages with every addition made, and what each one touched."""
    root = tmp_path_factory.mktemp("house")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, root / package)
    return root, {
        name: [apply(patch, root) for patch in patches(section)]
        for name, section in SECTIONS.items()
    }


def test_every_addition_is_described():
    assert list(SECTIONS) == list(FILES)


@pytest.mark.parametrize("name", FILES)
def test_few_files_and_lines_are_touched(name, patched):
    _, touched = patched
    assert len(set(touched[name])) <= FILES[name]
    added = [
        line
        for patch in patches(SECTIONS[name])
        for line in patch.splitlines()
        if re.match(r"\+(?!\+\+|from |import )\s*\S", line)
    ]
    assert len(added) <= 10


def test_what_was_added_works(patched, tmp_path):
    """All in one process: starting Python with torch is most of the time."""
    root, _ = patched
    uses = [
        text
        for section in SECTIONS.values()
        for kind, text in BLOCK.findall(section)
        if kind == "python"
    ]
    assert len(uses) == len(SECTIONS)
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(uses)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
