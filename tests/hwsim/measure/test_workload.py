"""The model on shapes alone: equal to a file of the same layers, and its books in order."""

from pathlib import Path

import pytest

from hwsim import estimate, estimate_workload
from hwsim.workloads import Workload, WorkloadLayer, workload
from tests.hwsim.containers import Maker, write
from tests.hwsim.programs import SMALL
from vq import SSVQ, Int8, Recipe
from vq.container import ConfigError

MEMORY = "ideal:bytes_per_cycle=8,latency=20"
BLOCKS = Workload(
    "blocks",
    (
        WorkloadLayer("stem", "linear", 32, 48, rows=5, kept=48),
        WorkloadLayer("b.{}.norm", "norm", 48, 48, rows=5, count=3, kept=96),
        WorkloadLayer("b.{}.up", "linear", 48, 64, rows=5, count=3, sources=("b.{}.norm",)),
        WorkloadLayer("b.{}.act", "activation", 64, 64, rows=5, count=3, sources=("b.{}.up",)),
        WorkloadLayer("b.{}.down", "linear", 64, 48, rows=5, count=3, sources=("b.{}.act",)),
        WorkloadLayer("head", "linear", 48, 10, rows=5),
    ),
)
RECIPE = Recipe({"*": SSVQ(d=8, k=16), "head": None})


def test_a_workload_costs_what_its_file_costs(tmp_path: Path) -> None:
    make, tile = Maker(0), {"tile_outputs": SMALL.rows}
    shapes = {"a": (24, 64), "b": (16, 32), "c": (40, 24)}
    layers = [make.ssvq(name, shape, 8, 16, **tile) for name, shape in shapes.items()]
    path = write(tmp_path / "file.vq.safetensors", layers)
    settings = {"config": SMALL, "memory": MEMORY, "methods": ("int8", "int4")}
    of_file = estimate(path, rows=7, **settings)
    of_shapes = estimate_workload(workload(f"{path}:rows=7"), "ssvq:d=8,k=16", **settings)
    ours, theirs = of_shapes["runs"]["compressed"], of_file["runs"]["compressed"]
    assert {k: v for k, v in ours.items() if k != "wall_seconds"} == {
        k: v for k, v in theirs.items() if k != "wall_seconds"
    }
    assert of_shapes["traffic_ratio"] == of_file["traffic_ratio"]
    for name in ("int8", "int4"):
        a, b = of_shapes["runs"][name], of_file["runs"][name]
        assert (a["bytes_by"], a["bytes_written"]) == (b["bytes_by"], b["bytes_written"])
        assert a["cycles"] == pytest.approx(b["cycles"], rel=0.01)  # where bursts begin may differ
    assert of_shapes["rest"] is None and of_shapes["speedup_with_rest"] == of_shapes["speedup"]
    assert list(of_shapes) == [*of_file, "workload", "rest", "speedup_with_rest"]
    assert of_shapes["workload"] == {
        "name": "file", "trained": True, "layers": 3, "parameters": 24 * 64 + 16 * 32 + 40 * 24,
    }  # fmt: skip


def require_books(document: dict) -> None:
    for run in document["runs"].values():
        assert run["busy_cycles"] + sum(run["stall_cycles"].values()) == run["cycles"]
        assert sum(run["bytes_by"].values()) == run["bytes_read"]
        for field in ("cycles", "bytes_read", "busy_cycles"):
            assert sum(row[field] for row in run["layers"]) == run[field]
        for row in run["layers"]:
            assert row["busy_cycles"] + sum(row["stall_cycles"].values()) == row["cycles"]


@pytest.mark.parametrize("memory", [MEMORY, "ddr4-2400"])
def test_once_multiplies(memory: str) -> None:
    settings = {"config": SMALL, "memory": memory, "methods": ("int8", "int4")}
    told: list[tuple[str, int, int]] = []
    whole = estimate_workload(BLOCKS, RECIPE, **settings)
    once = estimate_workload(
        BLOCKS, RECIPE, once=True, progress=lambda *facts: told.append(facts), **settings
    )
    for document in (whole, once):
        require_books(document)
        assert document["workload"]["layers"] == 14
        # head is kept, in every run.
        assert all(len(run["layers"]) in (7, 3) for run in document["runs"].values())
    assert [row["name"] for row in once["runs"]["int8"]["layers"]] == [
        "stem", "b.{}.up", "b.{}.down",
    ]  # fmt: skip
    assert once["rest"] == whole["rest"] and once["rest"]["macs"] == 5 * 48 * 10
    for name, run in once["runs"].items():
        other = whole["runs"][name]
        for field in ("bytes_read", "bytes_written", "bytes_by"):
            assert run[field] == other[field]
        assert run["cycles"] > other["cycles"]  # each repetition starts anew
        last = [facts for facts in told if facts[0] == name][-1]
        assert 0 < last[1] == last[2]
        if memory != MEMORY:
            assert run["energy_by"]["read"] == pytest.approx(other["energy_by"]["read"], rel=0.01)
            assert run["energy_pj"] == pytest.approx(sum(run["energy_by"].values()))
    rest = once["rest"]["cycles"]
    cycles = {name: run["cycles"] for name, run in once["runs"].items()}
    assert once["speedup_with_rest"] == (cycles["int8"] + rest) / (cycles["compressed"] + rest)
    assert once["speedup_with_rest"] < once["speedup"] == cycles["int8"] / cycles["compressed"]


def test_int8_under_every_recipe_is_the_same_run() -> None:
    runs = [
        estimate_workload(BLOCKS, recipe, config=SMALL)["runs"]["int8"]
        for recipe in ("ssvq:d=8,k=16", "int4", "int8")
    ]
    assert runs[0]["cycles"] == runs[1]["cycles"] == runs[2]["cycles"]
    same = estimate_workload(BLOCKS, "int8", config=SMALL)
    assert same["speedup"] == same["traffic_ratio"] == same["speedup_with_rest"] == 1


@pytest.mark.parametrize(
    ("recipe", "settings", "message"),
    [
        ("ssvq:d=8,k=16", {"methods": ("int9",)}, r"^methods must be of int8, .*, not 'int9'$"),
        ("ssvq:d=8,k=16", {"memory": "hbm"}, r"^memory must be one of"),
        ("ssvq:d=8,k=256", {}, r"layer 'head': k must be at most 60 sub-vectors|at most its 60"),
        ("ssvq:d=16,k=16", {}, r"d must be a power of two from 4 to 8, not 16"),
        (Recipe({"head": Int8(), "*": None}), {"methods": ()}, None),
        (Recipe({"*": None}), {}, r"^recipe for 'blocks' must compress a layer that"),
    ],
)
def test_refused(recipe: object, settings: dict, message: str | None) -> None:
    if message is None:
        document = estimate_workload(BLOCKS, recipe, config=SMALL, **settings)
        assert document["speedup"] is None and document["speedup_with_rest"] is None
        return
    with pytest.raises(ConfigError, match=message):
        estimate_workload(BLOCKS, recipe, config=SMALL, **settings)
