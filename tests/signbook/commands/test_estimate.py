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


@pytest.mark.parametrize(
    ("settings", "used"),
    [
        (["array=8x8"], {"rows": 8, "columns": 8, "bus_bits": 64, "d_max": 8}),
        (["array=32x32"], {"rows": 32, "columns": 32, "bus_bits": 128, "d_max": 16}),
        (["array=64x64"], {"rows": 64, "columns": 64, "bus_bits": 128, "d_max": 16}),
        (["bus_bits=64"], {"rows": 16, "columns": 16, "bus_bits": 64, "d_max": 16}),
        (["bus_bits=256"], {"rows": 16, "columns": 16, "bus_bits": 256, "d_max": 16}),
        (["bus_bits=512"], {"rows": 16, "columns": 32, "bus_bits": 512, "d_max": 16}),
        (["d_max=8"], {"rows": 16, "columns": 16, "bus_bits": 128, "d_max": 8}),
    ],
)
def test_one_setting_is_enough_for_one_file(
    settings: list[str], used: dict, tmp_path: Path
) -> None:
    """The others follow, as does the order of the streams, and the document says both."""
    file = write(tmp_path / "file.vq.safetensors", [Maker().ssvq("fc", (40, 64), 8, 16)])
    document = command.run(str(file), settings=settings)
    assert document["accelerator"].items() >= used.items()
    order = {"from": 16, "to": used["rows"]}
    assert document["runs"]["compressed"].get("reordered", {"from": 16, "to": 16}) == order
    workload_too = command.run(
        "resnet-20", recipe="ssvq:d=8,k=16", settings=settings, methods="none"
    )
    assert workload_too["accelerator"] == document["accelerator"]
    assert "reordered" not in workload_too["runs"]["compressed"]
