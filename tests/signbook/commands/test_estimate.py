"""``signbook estimate``: files as they are or as shapes, workloads."""

import json
from pathlib import Path
from typing import Any

import pytest

from hwsim import estimate, estimate_workload
from hwsim.workloads import workload
from signbook.commands import estimate as command
from tests.hwsim.containers import Maker, write
from tests.hwsim.programs import SMALL
from tests.signbook.runner import refused, run
from vq.container import ConfigError

MEMORY = "ideal:bytes_per_cycle=8,latency=20"
SETTINGS = {"config": SMALL, "memory": MEMORY}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    make = Maker(0)
    layers = [make.ssvq(name, (24, 64), 8, 16, tile_outputs=SMALL.rows) for name in "ab"]
    return write(tmp_path_factory.mktemp("file") / "two.vq.safetensors", layers)


def cycles(document: dict) -> dict[str, int]:
    return {name: run["cycles"] for name, run in document["runs"].items()}


def foresee(target: str, **options: Any) -> dict[str, Any]:
    """Run the command on the small accelerator."""
    settings = [f"{key}={value}" for key, value in SMALL.to_mapping().items()]
    return command.run(target, settings=settings, memory=MEMORY, **options)


def test_a_file_is_taken_as_it_is_or_as_shapes(file: Path) -> None:
    found = foresee(str(file), rows=5)
    assert cycles(found) == cycles(estimate(file, rows=5, **SETTINGS)) and "rest" not in found
    other = foresee(str(file), recipe="vq:d=4,k=16", rows=5, methods="int4")
    wanted = estimate_workload(
        workload(f"{file}:rows=5"), "vq:d=4,k=16", methods=("int4",), **SETTINGS
    )
    assert cycles(other) == cycles(wanted) and list(other["runs"]) == ["compressed", "int4"]


def test_a_workload_needs_a_recipe_and_says_its_rows(file: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^workload 'deit-tiny' must have a recipe, such as --re"
    ):
        foresee("deit-tiny")
    with pytest.raises(ConfigError, match=r"^--rows must be left out beside 'minilm-l6': a workl"):
        foresee("minilm-l6", recipe="int4", rows=3)
    with pytest.raises(ConfigError, match=r"did you mean 'deit-tiny'"):
        foresee("deit-tinny", recipe="int4")


def test_estimate_of_a_workload(tmp_path):
    out = tmp_path / "estimate.json"
    done = run(
        "estimate", "minilm-l6:tokens=1", "--recipe", "ssvq:d=8,k=16", "--methods", "int8,int4",
        "--json", out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(out.read_text())
    assert list(document["runs"]) == ["compressed", "int8", "int4"]
    assert document["workload"]["name"] == "minilm-l6" and not document["workload"]["trained"]
    assert 1 < document["speedup_with_rest"] < document["speedup"]
    assert "not run by the accelerator" in done.stdout
    assert "must have a recipe" in refused("estimate", "minilm-l6:tokens=1")
