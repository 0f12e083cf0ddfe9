"""Every script runs by its path and as a module, and hides no package from the others."""

import ast
import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import bench

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "bench"
FILES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")
OURS = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"bench"}


def imported(name: str) -> set[str]:
    """Names of the packages that a file of the folder imports, in functions, too."""
    found = set()
    for node in ast.walk(ast.parse((FOLDER / f"{name}.py").read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module))
    return {name.partition(".")[0] for name in found}


def test_no_file_has_the_name_of_a_package():
    """Beside a script that is run by its path, its file would be found in the package's place."""
    names = [*FILES, *(path.parent.name for path in FOLDER.glob("*/__init__.py"))]
    assert len(set(names)) == len(names)
    assert not {*importlib.metadata.packages_distributions(), *sys.stdlib_module_names} & {*names}
    assert not OURS & {*names}


@pytest.mark.parametrize("name", FILES)
def test_what_files_import_is_there_both_ways(name):
    assert str(FOLDER) in bench.__path__ and str(FOLDER) in sys.path
    for package in imported(name) - set(sys.stdlib_module_names):
        assert importlib.util.find_spec(package) or package == "scalesim", package


@pytest.mark.parametrize("script", [["bench/packing.py"], ["-m", "bench.packing"]])
def test_help(script):
    done = subprocess.run(
        [sys.executable, *script, "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "--quick" in done.stdout
