"""``make stories``: says what it lacks, and leaves a file that writes in integers."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from signbook.data.carried import carries
from signbook.data.files import data_folder
from tests.signbook.shared import shared
from tests.test_architecture import ROOT

FILE = ROOT / "out/stories/stories260k.vq.safetensors"


def make(data: Path, *options: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("make") is None:
        pytest.skip("there is no make")
    environment = {**os.environ, "SIGNBOOK_DATA": str(data)}
    return subprocess.run(
        ["make", *options, "stories"], cwd=ROOT, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def test_without_the_data_it_says_so(tmp_path):
    if FILE.exists():
        pytest.skip("the file is there, so that nothing is lacking")
    done = make(tmp_path)
    assert done.returncode == 2 and "stories260K.bin, which is absent; put ../shared" in done.stderr
    assert "venv" not in done.stdout  # before anything is installed


@pytest.mark.slow
def test_the_file_has_learnt_and_writes_in_integers():
    shared("stories260K/stories260K.bin")
    if not (ROOT / ".venv/.stamp").exists():
        pytest.skip("make has not set up .venv")
    done = make(data_folder())
    assert done.returncode == 0, done.stderr
    found = {
        name: json.loads((FILE.parent / f"{name}.json").read_text())
        for name in ("before", "after", "integer", "once")
    }
    nats = {
        name: found[name]["metrics"]["nats_per_token"] for name in ("before", "after", "integer")
    }
    assert abs(nats["before"] - 1.2373) < 1e-3 and nats["after"] < 2.2
    assert abs(nats["integer"] - nats["after"]) < 0.05
    assert carries(FILE) and len(found["once"]["tokens"]) == 48
