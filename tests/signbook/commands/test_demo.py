"""``signbook demo``: what is missing is found before any work."""

import pytest

from tests.signbook.runner import refused


def test_folder_that_cannot_be_written(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("not a folder")
    text = refused("demo", "--out", blocker / "out")
    assert "must be a folder that can be written" in text and "--out" in text
    assert blocker.read_text() == "not a folder"


@pytest.mark.parametrize("missing", ["g++", "make", "perl"])
def test_missing_compiler_is_found_before_any_work(tmp_path, missing):
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in {"g++", "make", "perl"} - {missing}:
        (tools / tool).write_text("#!/bin/sh\n")
        (tools / tool).chmod(0o755)
    text = refused("demo", "--out", tmp_path / "out", env={"PATH": str(tools)})
    assert "SimulationError" in text and missing in text and "apt" in text
    assert not (tmp_path / "out").exists()


def test_outputs_are_different_files(tmp_path):
    text = refused("demo", "--out", tmp_path, "--json", tmp_path / "report.html")
    assert "--json must be another file than that of --out" in text and not list(tmp_path.iterdir())
