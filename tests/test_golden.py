"""Public interfaces are what they were: help, documents, containers, Verilog.

``tests/golden/README.md`` says what to do where one of these fails.
"""

import json
from pathlib import Path

import pytest

from tests.golden import interfaces as golden


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that the commands read."""
    path = tmp_path_factory.mktemp("golden")
    golden.prepare(path)
    return path


def test_every_command_has_a_golden_help():
    files = {golden.help_file(command) for command in (None, *golden.commands())}
    assert files == set(golden.HELP.iterdir())


@pytest.mark.parametrize("command", [None, *golden.commands()])
def test_help(command):
    want = golden.help_file(command).read_text()
    assert golden.help_text(command) == want


@pytest.mark.parametrize("name", golden.COMMANDS)
def test_documents(name, folder):
    want = json.loads((golden.DOCUMENTS / f"{name}.json").read_text())
    assert list(golden.differences(golden.document(name, folder), want)) == []


@pytest.mark.parametrize("name", golden.WRITERS)
def test_containers(name, tmp_path):
    want = json.loads(golden.CONTAINERS.read_text())[name]
    assert golden.container_digests(name, tmp_path) == want


@pytest.mark.parametrize("name", golden.INSTANCES)
def test_verilog(name):
    want = json.loads(golden.VERILOG.read_text())[name]
    assert golden.verilog_digest(name) == want
