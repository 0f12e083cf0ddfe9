"""``signbook sweep``: stopped, resumed, on a Dask cluster, and mistakes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from hwsim.sweep import Space, sweep
from signbook.commands import sweep as command
from tests.hwsim.containers import write
from tests.hwsim.programs import SMALL, every_format
from tests.hwsim.sweep.evaluations import comparable, killer, space
from tests.signbook.runner import run
from vq.errors import SignbookError

#: Whoever runs the tests may have Ctrl-C ignored, as what a script starts with ``&``.
LISTEN = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
COMMAND = [sys.executable, "-c", f"{LISTEN}; from signbook.cli import main; main()", "sweep"]
#: Bandwidths whose phases do not come again, so that a point takes long enough for a signal to come
#: before the last one, even on a machine that does other things.
MEMORIES = [f"ideal:bytes_per_cycle=7.{n}" for n in range(301, 325, 2)]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "net.csv"
    path.write_text("Layer, M, N, K,\na, 128, 1024, 1024,\nb, 128, 1024, 1024,\n")
    return path


@pytest.fixture
def options(target: Path) -> list[str]:
    memories = [word for memory in MEMORIES for word in ("--memory", memory)]
    return [str(target), "--recipe", "ssvq:d=8,k=16", *memories]


@pytest.fixture
def plain(target: Path, tmp_path: Path) -> dict:
    """What an undisturbed sweep gives."""
    axes = {"targets": str(target), "recipes": "ssvq:d=8,k=16", "memories": MEMORIES}
    return comparable(sweep(Space.from_mapping(axes), tmp_path / "plain", workers=2))


def stopped(options: list[str], out: Path, number: int, *, group: bool) -> tuple[int, str]:
    """Start a sweep, send a signal when it has a row; its status and what it said."""
    process = subprocess.Popen(
        [*COMMAND, *options, "--out", str(out), "--workers", "2"],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip
    rows = out / "points.jsonl"
    while not (rows.exists() and rows.read_text().count("\n")):
        assert process.poll() is None
        time.sleep(0.01)
    (os.killpg if group else os.kill)(process.pid, number)
    _, said = process.communicate(timeout=300)
    for _ in range(200):
        try:
            os.killpg(process.pid, 0)  # workers, and what started them
        except ProcessLookupError:
            return process.returncode, said
        time.sleep(0.1)
    raise AssertionError("processes were left behind")


@pytest.mark.parametrize("group", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_control_c(options: list[str], plain: dict, tmp_path: Path, group: bool) -> None:
    out = tmp_path / "out"
    status, said = stopped(options, out, signal.SIGINT, group=group)
    assert status == 130
    assert said == (
        f"interrupted; every finished point is in {out}: the same command with --resume goes on "
        "from there\n"
    )
    before = (out / "points.jsonl").read_text()
    assert 1 <= before.count("\n") < len(MEMORIES)
    done = run("sweep", *options, "--out", out, "--resume", "--json", tmp_path / "again.json")
    assert done.returncode == 0, done.stderr
    assert (out / "points.jsonl").read_text().startswith(before)
    again = json.loads((tmp_path / "again.json").read_text())
    assert comparable(again) == plain


def test_kill(options: list[str], plain: dict, tmp_path: Path) -> None:
    status, _ = stopped(options, tmp_path / "out", signal.SIGKILL, group=False)
    assert status == -signal.SIGKILL
    done = run("sweep", *options, "--out", tmp_path / "out")
    assert done.returncode == 1 and "go on with --resume" in done.stderr
    done = run("sweep", *options, "--out", tmp_path / "out", "--resume")
    assert done.returncode == 0, done.stderr
    assert (
        re.search(rf"done +│ {len(MEMORIES)} ", done.stdout)
        and "front: cycles, area_macs" in done.stdout
    )
    again = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert comparable(again) == plain


def test_options_take_the_place_of_the_file(target: Path, tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(
        f"targets: {target}\nrecipes: [int4, int8]\nmemories: hbm2\n"
        "accelerator: {array: [16x16, 32x32], bus_bits: [64, 128]}\n"
    )
    out = tmp_path / "out"
    options = ["--space", path, "--recipe", "int2", "--set", "bus_bits=256", "--out", out]
    done = run("sweep", *options, "--memory", "ideal:bytes_per_cycle=8", "--objective", "speedup")
    assert done.returncode == 0, done.stderr
    document = json.loads((out / "sweep.json").read_text())
    assert list(document["space"]["recipes"]) == ["int2"]
    assert document["space"]["accelerator"] == {"array": ["16x16", "32x32"], "bus_bits": [256]}
    assert document["objectives"] == ["speedup"] and len(document["rows"]) == 2


def test_a_mistake_is_one_error(tmp_path: Path) -> None:
    done = run("sweep", "resnet-2", "--out", tmp_path / "out")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ConfigError: sweep has 2 problems:\n- workload must be")
    assert run("sweep", "resnet-20").returncode == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"settings": ["bus_bits"]}, r"^--set must be KEY=VALUE,VALUE, not 'bus_bits'$"),
        (
            {"settings": ["array=8x8", "bus_bits=128"], "workers": 1},
            r"at least one of 1 points must be measured, not none; the first was refused: accel",
        ),
        ({"dask": "nonsense://x"}, r"^--dask must be the address of a scheduler that answers"),
        ({"dask": "tcp://127.0.0.1:1"}, r"such as tcp://127.0.0.1:8786, not 'tcp://127.0.0.1:1'"),
    ],
)
def test_mistakes(given: dict, message: str, target: Path, tmp_path: Path, monkeypatch) -> None:
    if "dask" in given:
        pytest.importorskip("distributed")
        monkeypatch.setattr(command, "_DASK_SECONDS", 1)
    with pytest.raises(SignbookError, match=message):
        command.run(tmp_path / "out", [str(target)], recipe=["int8"], **given)


@pytest.mark.slow
def test_dask(target: Path, tmp_path: Path, plain: dict) -> None:
    distributed = pytest.importorskip("distributed")
    with warnings.catch_warnings(), _cluster(distributed) as cluster:
        document = command.run(
            tmp_path / "out",
            [str(target)],
            recipe=["ssvq:d=8,k=16"],
            memory=MEMORIES,
            dask=cluster.scheduler_address,
        )
        assert comparable(document) == plain
        with distributed.Client(cluster) as client:
            found = sweep(
                space(), tmp_path / "killed", executor=client.get_executor, workers=1,
                evaluate=killer,
            )  # fmt: skip
    statuses = [row["status"] for row in found["rows"]]
    assert statuses == ["done", "done", "failed", "done", "done", "done"]
    assert found["rows"][2]["error"].startswith("KilledWorker: ")


def _cluster(distributed):
    warnings.simplefilter("ignore")  # of the cluster's own ports and loops
    import dask

    dask.config.set({"distributed.scheduler.allowed-failures": 1})
    return distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, processes=True
    )


@pytest.mark.rtl
@pytest.mark.slow
def test_rtl_and_model_agree(tmp_path: Path) -> None:
    path = write(tmp_path / "small.vq.safetensors", every_format(1))
    settings = {name: [value] for name, value in SMALL.to_mapping().items()}
    axes = {"targets": str(path), "rows": 3, "accelerator": settings}
    rows = {}
    for engine in ("rtl", "model"):
        found = sweep(Space.from_mapping(axes | {"engine": engine}), tmp_path / engine, workers=1)
        (rows[engine],) = comparable(found)["rows"]
        assert rows[engine].pop("engine") == engine and rows[engine]["status"] == "done"
    assert rows["rtl"] == rows["model"]
