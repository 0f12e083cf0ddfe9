"""Searches by optuna: the same trials for a seed and a window, however points finish."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hwsim.sweep import Point, Space, sweep
from hwsim.sweep.evaluate import Work
from tests.hwsim.sweep.evaluations import MEMORIES, made_up, space
from vq.container import ConfigError

pytest.importorskip("optuna")
from hwsim.sweep.search import Search

SETTINGS = {"bus_bits": [64, 128], "fifo_bytes": [4096, 8192, 16384], "array": ["16x16", "32x32"]}
threads = partial(ThreadPoolExecutor, 2)


def designs() -> Space:
    return space(recipes=["ssvq:d=8,k=16", "int8"], accelerator=SETTINGS)


def cost(point: Point) -> dict[str, Any]:
    """A row as a function of the point, with one best design."""
    chosen = dict(point.accelerator)
    number = MEMORIES.index(point.memory)
    cycles = 100 * abs(number - 4) + chosen["fifo_bytes"] // 4096 + 10 * (chosen["bus_bits"] == 64)
    multipliers = 256 if chosen["array"] == "16x16" else 1024
    cycles += 5 * (point.recipe == "int8") + 2000 // multipliers
    bad = number == 5
    return {"cycles": None if bad else cycles, "multipliers": None if bad else multipliers}


def run(search: Search, order: int) -> list[Point]:
    """Answer trials, the oldest or the newest of those that are open first."""
    asked: list[Point] = []
    flying: list[Point] = []
    while True:
        while (point := search.ask()) is not None:
            asked.append(point)
            flying.append(point)
        if not flying:
            return asked
        point = flying.pop(order)
        search.tell(point, cost(point))


@pytest.mark.parametrize("objectives", [["cycles"], ["cycles", "area_macs"]])
def test_what_is_chosen_does_not_depend_on_what_finishes_first(objectives: list[str]) -> None:
    settings = {"trials": 40, "window": 3}
    first = run(Search(designs(), objectives, seed=0, **settings), 0)
    assert len(set(first)) == len(first) <= 40
    assert run(Search(designs(), objectives, seed=0, **settings), -1) == first
    assert run(Search(designs(), objectives, seed=1, **settings), 0) != first
    longer = run(Search(designs(), objectives, seed=0, trials=60, window=3), 0)
    assert longer[: len(first)] == first


def test_it_finds_the_best_sooner_than_by_chance() -> None:
    points = list(designs().points())
    assert len(points) == 144
    best = min(c for p in points if (c := cost(p)["cycles"]) is not None)
    found = []
    for seed in range(3):
        asked = run(Search(designs(), ["cycles"], trials=60, seed=seed, window=1), 0)
        found.append(min(c for p in asked if (c := cost(p)["cycles"]) is not None))
    assert max(found) <= best + 6


def real_cost(work: Work) -> dict[str, Any]:
    row = made_up(work)
    accelerator = tuple(work.accelerator.items())
    recipe = "int8" if work.rules["*"]["method"] == "int8" else "ssvq:d=8,k=16"
    found = cost(Point(work.target, recipe, work.memory, None, accelerator))
    return row | found | {"status": "refused" if found["cycles"] is None else "done"}


def test_resumes_to_the_document_of_an_undisturbed_run(tmp_path: Path) -> None:
    settings = {"search": 30, "seed": 4, "evaluate": real_cost, "executor": threads}
    whole = sweep(designs(), tmp_path / "whole", workers=2, **settings)
    assert whole["search"] == {"trials": 30, "seed": 4, "window": 2}
    assert "optuna" in whole["versions"]
    points = [tuple(sorted(map(str, row["point"].items()))) for row in whole["rows"]]
    assert 10 < len(set(points)) == len(points) <= 30

    def stop(row: Mapping[str, Any]) -> None:
        if len((tmp_path / "out" / "points.jsonl").read_text().splitlines()) == 11:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(designs(), tmp_path / "out", workers=2, progress=stop, **settings)
    # As many at once as before, whatever is asked for now.
    again = sweep(designs(), tmp_path / "out", workers=7, resume=True, **settings)
    assert again == whole
    more = sweep(designs(), tmp_path / "out", workers=2, resume=True, **{**settings, "search": 40})
    assert more["rows"][: len(whole["rows"])] == whole["rows"]
    with pytest.raises(ConfigError, match=r"\n- seed must be 4, as before, not 5\n"):
        sweep(designs(), tmp_path / "out", workers=2, resume=True, **{**settings, "seed": 5})
    with pytest.raises(ConfigError, match=r"\n- search must be true, as before, not false\n"):
        sweep(designs(), tmp_path / "out", resume=True, **{**settings, "search": None})


def test_only_the_same_work_can_be_searched(tmp_path: Path) -> None:
    two = space(targets=["resnet-20", "deit-tiny"])
    message = (
        r"^sweep has 2 problems:\n- search must have at least 1 trial, not 0\n"
        r"- targets must be one for a search, which compares points that do the same work, not 2$"
    )
    with pytest.raises(ConfigError, match=message):
        sweep(two, tmp_path, search=0, evaluate=made_up)
