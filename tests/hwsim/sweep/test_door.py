"""Whole sweeps: the same document whatever runs them, whatever stops them."""

import json
import re
import resource
import sys
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from hwsim import estimate
from hwsim.sweep import Space, local_pool, sweep
from hwsim.sweep.document import Measures
from rtl import AcceleratorConfig
from signbook.commands.inspect import inspect_file
from tests.hwsim.containers import Maker, write
from tests.hwsim.sweep import evaluations
from tests.hwsim.sweep.evaluations import MEMORIES, comparable, made_up, space
from vq.container import ConfigError, OutputError, SimulationError
from vq.errors import ResumeError

threads = partial(ThreadPoolExecutor, 2)


@pytest.fixture
def small(tmp_path: Path) -> Space:
    """Four points of a file, one of which no accelerator can run."""
    layers = [Maker(0).ssvq("a", (32, 32), 4, 16), Maker(1).vq("b", (16, 32), 4, 64)]
    path = write(tmp_path / "small.vq.safetensors", layers)
    return Space.from_mapping(
        {
            "targets": str(path),
            "rows": [1, 8],
            "memories": "ideal:bytes_per_cycle=4",
            "accelerator": {"bus_bits": [64, 128], "array": "16x16"},
        }
    )


def lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "points.jsonl").read_text().splitlines()]


def test_rows_say_what_estimate_says(small: Space, tmp_path: Path) -> None:
    document = sweep(small, tmp_path / "out", executor=threads, workers=2)
    assert document == json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert [row["point"] for row in document["rows"]] == [p.to_json() for p in small.points()]
    config = AcceleratorConfig(bus_bits=128)
    (row,) = (
        row
        for row in document["rows"]
        if row["point"]["rows"] == 8 and row["point"]["accelerator"]["bus_bits"] == 128
    )
    one = estimate(small.targets[0], config=config, memory=small.memories[0], rows=8)
    ours, int8 = one["runs"]["compressed"], one["runs"]["int8"]
    macs = 8 * (32 * 32 + 16 * 32)
    assert list(row) == ["point", "status", "error", "engine", *Measures.model_fields, "seconds"]
    assert (row["status"], row["error"], row["engine"]) == ("done", None, "model")
    assert (row["cycles"], row["int8_cycles"]) == (ours["cycles"], int8["cycles"])
    assert (row["bytes_read"], row["int8_bytes_read"]) == (ours["bytes_read"], int8["bytes_read"])
    assert (row["speedup"], row["traffic_ratio"]) == (one["speedup"], one["traffic_ratio"])
    assert (row["bursts"], row["energy_pj"]) == (ours["bursts"], ours["energy_pj"])
    assert (row["macs"], row["multipliers"], row["rows"]) == (macs, 256, 8)
    assert row["busy_share"] == macs / (ours["cycles"] * 256)
    assert row["bytes_per_cycle"] == 4 and row["seconds"] > 0
    assert row["bits_per_weight"] == inspect_file(Path(small.targets[0]))["bits_per_weight"]


def test_workloads_are_measured_beside_int8(tmp_path: Path) -> None:
    table = tmp_path / "net.csv"
    table.write_text("Layer, M, N, K,\na, 4, 64, 64,\nb, 4, 32, 64,\n")
    found = Space.from_mapping(
        {
            "targets": str(table),
            "recipes": ["ssvq:d=8,k=16", "int8", "vq:d=4,k=1024"],
            "memories": ["ddr4-2400:clock_mhz=1000"],
        }
    )
    ssvq, int8, vq = sweep(found, tmp_path / "out", executor=threads)["rows"]
    assert ssvq["cycles"] < ssvq["int8_cycles"] == int8["cycles"] == int8["int8_cycles"]
    assert int8["speedup"] == int8["traffic_ratio"] == 1.0
    assert ssvq["macs"] == 4 * 64 * (64 + 32) and ssvq["rows"] == 4
    # Two codebooks, scales, and half of b's index planes.
    assert ssvq["bits_per_weight"] == pytest.approx(1.5 + 8 * (2 * 128 + 64 + 128) / 6144)
    assert ssvq["bytes_per_cycle"] == pytest.approx(19.2, rel=0.01)
    assert vq["status"] == "refused" and "layer 'b': k must be at most its 512" in vq["error"]
    assert all(vq[name] is None for name in Measures.model_fields)


def test_a_combination_that_cannot_be_is_a_row(small: Space, tmp_path: Path) -> None:
    tight = Space.from_mapping(
        {"targets": small.targets, "accelerator": {"array": ["8x8", "16x16"], "d_max": [8, 16]}}
    )
    rows = sweep(tight, tmp_path / "out", executor=threads)["rows"]
    assert [row["status"] for row in rows] == ["done", "refused", "done", "done"]
    assert "d_max must be 1, 2, 4, 8 or 16 and at most columns = 8, not 16" in rows[1]["error"]


def test_any_executor_gives_the_same_document(small: Space, tmp_path: Path) -> None:
    found = [
        sweep(small, tmp_path / "threads", executor=threads, workers=2),
        sweep(small, tmp_path / "one", workers=1),
        sweep(small, tmp_path / "two", workers=2),
    ]
    assert comparable(found[0]) == comparable(found[1]) == comparable(found[2])


def test_a_point_that_kills_its_worker_is_found(tmp_path: Path) -> None:
    document = sweep(space(), tmp_path / "out", workers=3, evaluate=evaluations.killer, retries=1)
    (failed,) = (row for row in document["rows"] if row["status"] != "done")
    assert failed["point"]["memory"] == MEMORIES[2] and failed["status"] == "failed"
    assert failed["error"] == (
        "SimulationError: worker must live until it is done, but died 2 times"
    )
    want = sweep(space(), tmp_path / "plain", executor=threads, evaluate=made_up)
    for row, plain in zip(document["rows"], want["rows"], strict=True):
        assert row == plain or row == failed
    assert len(lines(tmp_path / "out")) == 6


def test_a_worker_that_dies_by_chance_costs_nothing(tmp_path: Path) -> None:
    table = tmp_path / "net.csv"
    table.write_text("Layer, M, N, K,\nfc, 4, 8, 8,\n")
    document = sweep(
        space(targets=[str(table)]), tmp_path, workers=2, evaluate=evaluations.dies_once
    )
    assert table.with_suffix(".mark").exists()
    assert {row["status"] for row in document["rows"]} == {"done"}


def test_any_other_error_is_a_row(tmp_path: Path) -> None:
    document = sweep(space(), tmp_path / "out", executor=threads, evaluate=evaluations.raises)
    assert [row["status"] for row in document["rows"]].count("done") == 5
    assert document["rows"][1]["status"] == "failed"
    assert document["rows"][1]["error"] == "ZeroDivisionError: on purpose"
    assert 1 not in document["pareto"]


def test_damaged_files_fail_without_stopping(small: Space, tmp_path: Path) -> None:
    path = Path(small.targets[0])
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    rows = sweep(small, tmp_path / "out", executor=threads)["rows"]
    assert {row["status"] for row in rows} == {"failed"}
    assert rows[0]["error"].startswith("ContainerError: ")


class Stop(BaseException):
    """What nobody expects."""


def test_resumes_after_any_stop(small: Space, tmp_path: Path, monkeypatch) -> None:
    mark, out = tmp_path / "mark", tmp_path / "out"
    monkeypatch.setenv("SIGNBOOK_TEST_MARK", str(mark))
    whole = sweep(small, tmp_path / "whole", executor=threads, evaluate=evaluations.counted)
    assert Counter(mark.read_text().split()) == {small.memories[0]: 4}
    mark.write_text("")

    def stop(row) -> None:
        if len(lines(out)) == 2:
            raise Stop

    settings = {"executor": partial(ThreadPoolExecutor, 1), "workers": 1}
    with pytest.raises(Stop):
        sweep(small, out, progress=stop, evaluate=evaluations.counted, **settings)
    assert json.loads((out / "sweep.json").read_text())["rows"] == []
    with (out / "points.jsonl").open("a") as file:
        file.write('{"point": {"target": "to')  # torn: the machine stopped here
    with pytest.raises(
        ResumeError, match=r"must hold no points yet, but has 2; go on with --resume"
    ):
        sweep(small, out, **settings)
    seen = []
    again = sweep(
        small, out, resume=True, progress=seen.append, evaluate=evaluations.counted, **settings
    )
    assert len(mark.read_text().split()) == 4 == len(seen) == len(lines(out))
    assert comparable(again) == comparable(whole)
    assert sweep(small, out, resume=True, **settings) == again


def test_refuses_to_resume_another_sweep(small: Space, tmp_path: Path) -> None:
    out, settings = tmp_path / "out", {"executor": threads}
    sweep(small, out, **settings)
    other = Space.from_mapping(small.to_json() | {"rows": [2], "recipes": None})
    with pytest.raises(ResumeError) as caught:
        sweep(other, out, resume=True, **settings)
    assert str(caught.value) == (
        f"{out}/sweep.json: resumed sweep has 1 problem:\n"
        "- space: rows must be [1, 8], as before, not [2]\nchoose another --out"
    )
    write(Path(small.targets[0]), [Maker(5).ssvq("a", (32, 32), 4, 16)])
    with pytest.raises(ResumeError, match=r"\n- files: .* as before, not "):
        sweep(small, out, resume=True, **settings)


def test_other_objectives_are_another_front_of_the_same_rows(tmp_path: Path) -> None:
    settings = {"executor": threads, "evaluate": made_up}
    first = sweep(space(), tmp_path, **settings)
    assert first["pareto"] == [0, 1, 2, 3, 4, 5]
    again = sweep(space(), tmp_path, resume=True, objectives=["cycles"], **settings)
    assert again["pareto"] == [5] and again["rows"] == first["rows"]


def test_folders_that_hold_something_else(tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text('{"schema": "signbook.simulate/1"}')
    with pytest.raises(ResumeError, match=r"must be the document of a sweep \(signbook.sweep/1\)"):
        sweep(space(), tmp_path, executor=threads, evaluate=made_up)
    (tmp_path / "sweep.json").unlink()
    for line in ("what", '{"point": 1}', '{"point": {"accelerator": {}}, "status": 1}'):
        (tmp_path / "points.jsonl").write_text(line + "\n")
        message = (
            rf"points.jsonl: line 1 must be a row of a sweep, not {re.escape(repr(line[:40]))}"
        )
        with pytest.raises(ResumeError, match=message):
            sweep(space(), tmp_path, executor=threads, resume=True, evaluate=made_up)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(OutputError, match=r"file: must be a folder that can be written"):
        sweep(space(), file, executor=threads, evaluate=made_up)


def test_one_sweep_at_a_time_in_a_folder(tmp_path: Path) -> None:
    def nested(row) -> None:
        with pytest.raises(ResumeError, match=r"points.jsonl: must be free, but another sweep"):
            sweep(space(), tmp_path, resume=True, executor=threads, evaluate=made_up)

    sweep(space(), tmp_path, executor=threads, evaluate=made_up, progress=nested)


def test_arguments_are_refused_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        sweep(space(), tmp_path, objectives=["cycle", "cycles", "cycles"], workers=0, retries=-1)
    assert str(caught.value).startswith("sweep has 4 problems:\n- objective must be one of cycles,")
    assert "not 'cycle' (did you mean 'cycles'?)\n" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_an_executor_that_cancels_stops_the_sweep(tmp_path: Path) -> None:
    class Cancels(ThreadPoolExecutor):
        def submit(self, function, /, *arguments, **named):
            if len(lines(tmp_path)) < 3:
                return super().submit(function, *arguments, **named)
            future = Future()
            future.cancel()
            future.set_running_or_notify_cancel()
            return future

    with pytest.raises(SimulationError, match=r"^executor must finish what it was given"):
        sweep(space(), tmp_path, executor=lambda: Cancels(1), workers=1, evaluate=made_up)
    assert len(lines(tmp_path)) == 3


def test_a_full_disk_keeps_what_is_finished(tmp_path: Path) -> None:
    whole = sweep(space(), tmp_path / "whole", executor=threads, evaluate=made_up)
    size = (tmp_path / "whole" / "points.jsonl").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size * 3 // 4, hard))
    try:
        with pytest.raises(
            OutputError, match=r"points.jsonl: must be writable, not refused \(File"
        ):
            sweep(space(), tmp_path / "out", executor=threads, evaluate=made_up, workers=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    text = (tmp_path / "out" / "points.jsonl").read_text()
    assert 0 < text.count("\n") < 6 and not text.endswith("\n")
    again = sweep(space(), tmp_path / "out", executor=threads, resume=True, evaluate=made_up)
    assert again == whole


def test_local_workers_start_with_what_they_need() -> None:
    with local_pool(1) as pool:
        assert pool.submit(_imported).result() == [True, False]


def _imported() -> list[bool]:
    return [name in sys.modules for name in ("hwsim.measure.estimate", "torch")]


def test_workers_that_do_not_listen_are_killed(tmp_path: Path) -> None:
    pool = local_pool(1)
    future = pool.submit(evaluations.deaf, tmp_path / "mark")
    while not (tmp_path / "mark").exists():
        assert not future.done()
        time.sleep(0.01)
    start = time.monotonic()
    pool.terminate_workers()
    assert time.monotonic() - start < 300 and future.done()
    assert not Path((tmp_path / "mark").read_text()).exists()


def test_workers_that_listen_undo_what_they_have_begun(tmp_path: Path) -> None:
    pool = local_pool(1)
    future = pool.submit(evaluations.listening, tmp_path / "mark")
    while not (tmp_path / "mark").exists():
        assert not future.done()
        time.sleep(0.01)
    (worker,) = pool._processes.values()
    pool.terminate_workers()
    assert not (tmp_path / "mark").exists() and worker.exitcode == 1
