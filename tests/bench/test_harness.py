"""What the benches share: choices, finished work, differences per image."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from bench import harness


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Function that starts the same bench anew, as a later process would."""
    monkeypatch.chdir(tmp_path)

    def start(*arguments):
        monkeypatch.setattr(sys, "argv", ["bench", *arguments])
        return harness.Bench("some", "What it measures.", seeds=3)

    return start


@pytest.mark.parametrize(
    ("best", "tried"),
    [
        (3e-2, {1e-2, 3e-2, 1e-1}),
        (1e-2, {1e-2, 3e-2, 3e-3}),
        (1e-3, {1e-3, 3e-3, 1e-2, 3e-2}),
        (3e-1, {1e-2, 3e-2, 1e-1, 3e-1}),
    ],
)
def test_choice_walks_downhill_until_the_loss_rises(bench, best, tried):
    asked = []

    def loss(rate):
        asked.append(rate)
        return abs(math.log(rate / best))

    assert bench().choose("work", "arm", loss) == best
    assert set(asked) == tried and len(asked) == len(tried)
    assert bench().choose("work", "arm", loss) == best
    assert len(asked) == len(tried), "kept choices are not made again"


def test_finished_work_is_kept_for_its_budget_and_setting(bench):
    runs = []

    def run():
        runs.append(1)
        return {"score": len(runs), "bits_per_weight": 2}

    assert bench().measure("w", "a", 0, run, setting="rate 1")["score"] == 1
    assert bench().measure("w", "a", 0, run, setting="rate 1")["score"] == 1
    assert bench().measure("w", "a", 0, run, setting="rate 2")["score"] == 2
    assert bench("--quick").measure("w", "a", 0, run, setting="rate 1")["score"] == 3
    assert bench().measure("w", "a", 1, run, setting="rate 1")["score"] == 4
    with Path("out/bench/some.jsonl").open("a") as file:
        file.write('{"key": {"work": "w", "arm": "b", "se')  # stopped while writing
    assert bench().measure("w", "a", 0, run, setting="rate 1")["score"] == 1
    assert bench().measure("w", "b", 0, run)["score"] == 5
    assert bench().measure("w", "b", 0, run)["score"] == 5, "kept behind a line that was not ended"
    assert bench("--fresh").measure("w", "a", 0, run, setting="rate 1")["score"] == 6


def test_a_median_stands_beside_the_mean(bench):
    some = bench()
    for seed, score in enumerate((1.0, 9.0, 2.0)):
        some.measure("w", "a", seed, lambda score=score: {"score": score})
    some.measure("w", "b", 0, lambda: {"score": 7.0})
    assert some.median("w", "a", "score", "middle") == 2
    rows = {(r["arm"], r["metric"]): (r["mean"], r["seeds"]) for r in some.finish()["rows"]}
    assert rows == {("a", "score"): (4, 3), ("a", "middle"): (2, 1), ("b", "score"): (7, 1)}


def test_processes_share_the_work(bench):
    first, second = bench(), bench()
    assert first.measure("w", "a", 0, lambda: {"score": 1})["score"] == 1
    assert second.measure("w", "b", 0, lambda: {"score": 2})["score"] == 2
    assert first.tried("w", "a", "option", lambda: 3) == 3

    def unused():
        raise AssertionError("what another process has finished is not done again")

    assert second.measure("w", "a", 0, unused)["score"] == 1
    assert first.measure("w", "b", 0, unused)["score"] == 2
    assert second.tried("w", "a", "option", unused) == 3


def test_pieces_are_chosen_by_works_and_arms(bench, monkeypatch, capsys):
    assert (bench().works, bench().arms) == ((), ())

    def piece(*arguments):
        monkeypatch.setattr(sys, "argv", ["bench", *arguments])
        return harness.Bench("some", "What.", seeds=3, works=("w", "x", "y"), arms=("a", "b"))

    whole, part = piece(), piece("--works", "y", "w")
    assert list(whole.works) == ["w", "x", "y"] and list(whole.arms) == ["a", "b"]
    assert list(part.works) == ["y", "w"] and list(part.arms) == ["a", "b"]
    with pytest.raises(SystemExit):
        piece("--arms", "c")
    assert "argument --arms: invalid choice: 'c'" in capsys.readouterr().err


def test_document_has_mean_and_standard_error(bench, tmp_path):
    current = bench("--json", str(tmp_path / "bench.json"))
    for seed, score in zip(current.seeds, (1.0, 2.0, 6.0), strict=True):
        run = {"score": score, "bits_per_weight": 1.5}
        current.measure("w", "a", seed, lambda run=run: run)
    current.finish()
    document = json.loads((tmp_path / "bench.json").read_text())
    assert document["schema"] == "signbook.bench/1" and document["name"] == "some"
    (row,) = document["rows"]
    spread = math.sqrt(7) / math.sqrt(3)
    assert row["mean"] == 3 and row["stderr"] == pytest.approx(spread) and row["seeds"] == 3
    assert row["bits_per_weight"] == 1.5 and row["metric"] == "score"


@pytest.mark.parametrize("resumed", [False, True])
def test_difference_pairs_images_and_seeds(bench, resumed):
    random = np.random.default_rng(0)
    right = {(a, s): random.random(1001) < 0.5 + 0.1 * (a == "a") for a in "ab" for s in range(3)}
    for _ in range(1 + resumed):
        current = bench()
        for (arm, seed), images in right.items():
            got = current.measure("w", arm, seed, lambda images=images: {"top1": images})
            assert got["top1"] == images.mean()
    current.difference("w", "a", "b", same_images=True)
    rows = {(r["arm"], r["metric"]): r for r in current.finish()["rows"]}
    gains = [100 * (right["a", s].astype(float) - right["b", s]) for s in range(3)]
    row = rows["a - b", "top1"]
    assert row["mean"] == pytest.approx(np.mean(gains))
    assert row["stderr"] == pytest.approx(np.std([g.mean() for g in gains], ddof=1) / math.sqrt(3))
    images = np.mean(gains, axis=0)
    want = images.std(ddof=1) / math.sqrt(1001)
    assert rows["a - b", "top1 image_se"]["mean"] == pytest.approx(want)
    assert rows["a - b", "top1 image_se"]["seeds"] == 1
