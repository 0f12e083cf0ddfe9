"""The command line as a module."""

import subprocess
import sys

import pytest

from vq.version import TOOL


@pytest.mark.parametrize(
    ("arguments", "status", "output"), [(["--version"], 0, f"{TOOL}\n"), (["plam"], 2, "")]
)
def test_python_runs_the_package(arguments, status, output):
    command = [sys.executable, "-m", "signbook", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (status, output)
