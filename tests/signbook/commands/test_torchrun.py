"""Commands on several processes: the results of one, said once, and one error where one fails."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

import vq
from signbook.cli import main
from signbook.commands import finetune, quantize, torchrun
from signbook.files import FILE_NAME
from signbook.tasks import Classification
from tests.processes import Group, free_port, two_processes
from tests.signbook.runner import refused
from vq.container import open_container

ROOT = Path(__file__).parents[3]
HERE = "tests.signbook.commands.test_torchrun"
MODEL, DATA = f"py:{HERE}:network", f"py:{HERE}:vectors"
RECIPE = '"0": {method: ssvq, d: 8, k: 16}\n"2": {method: vq, d: 4, k: 32}\n"4": null\n'


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 5)
    )


def vectors(bad: int = -1, slow: bool = False, joined: int = 1):
    """Batches of 12 rows, or ``joined`` times as many; of batch ``bad``, row 1 has no label."""
    generator = torch.Generator().manual_seed(1)
    batches = []
    for number in range(6):
        x = torch.randn(12, 16, generator=generator)
        y = x[:, :5].argmax(1)
        y[1] = 77 if number == bad else y[1]
        batches.append((x, y))
    if joined > 1:
        groups = zip(*(batches[i::joined] for i in range(joined)), strict=True)
        batches = [tuple(map(torch.cat, zip(*group, strict=True))) for group in groups]
    return Classification(_Slow(batches) if slow else batches)


class _Slow(list):
    """Batches that last for a minute, and say when they start."""

    def __iter__(self):
        for batch in list.__iter__(self):
            yield batch
        Path(os.environ["STARTED"]).touch()
        for _ in range(600):
            time.sleep(0.1)
            yield batch


def recipe_in(folder: Path) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def train(folder: Path, **settings):
    return finetune.run(
        MODEL, recipe_in(folder), DATA, folder / "tuned", epochs=2, device="cpu", **settings
    )


def round_(folder: Path):
    return quantize.run(MODEL, folder / "rounded", DATA, method="gptaq", bits=3, device="cpu")


def learn(folder: Path):
    given = {"method": "sde", "width": 2, "bits": 2, "epochs": 2, "activation_bits": 4}
    return quantize.run(MODEL, folder / "learnt", DATA, device="cpu", **given)


def work(rank, folder):
    folder = folder / "own" if rank else folder  # what the second one wrote would be there
    folder.mkdir(exist_ok=True)
    documents = [train(folder, blockwise=True), round_(folder), learn(folder)]
    assert [bool(document) for document in documents] == [rank == 0] * 3
    if rank:
        assert [path.name for path in folder.rglob("*") if path.is_file()] == ["recipe.yaml"]


@pytest.mark.slow
def test_two_processes_write_what_one_writes(tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    one = [train(alone, blockwise=True), round_(alone)]
    place = two_processes(work, tmp_path)
    two = json.loads((place / "tuned" / "run.json").read_text())
    assert two["run"]["losses"] == pytest.approx(one[0]["run"]["losses"], rel=1e-4)
    before, after = ([b["after"] for b in d["blockwise"]["blocks"]] for d in (one[0], two))
    assert after == pytest.approx(before, rel=1e-3)
    for name in ("tuned", "rounded"):
        with (
            open_container(alone / name / FILE_NAME) as a,
            open_container(place / name / FILE_NAME) as b,
        ):
            assert a.provenance.recipe == b.provenance.recipe
            for entry in a.layers:
                layer = entry.geometry.name
                torch.testing.assert_close(
                    torch.from_numpy(a.weight(layer)), torch.from_numpy(b.weight(layer)),
                    rtol=0, atol=2e-3,
                )  # fmt: skip
    vq.load(place / "tuned" / FILE_NAME, into=network())
    learnt = json.loads((place / "learnt" / "quantize.json").read_text())
    assert learnt["blocks"][0]["after"] < learnt["blocks"][0]["before"]
    vq.load(place / "learnt" / FILE_NAME, into=network())


def as_rank(rank, words):
    os.environ.update({"RANK": str(rank), "LOCAL_RANK": str(rank)})
    sys.argv = ["signbook", *words]
    main()


def ranks(folder, *words, **variables):
    """Two processes of one command, started as torchrun starts them."""
    address = {
        "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()), "COLUMNS": "200", **variables,
    }  # fmt: skip
    calls = [functools.partial(as_rank, rank, [*map(str, words)]) for rank in (0, 1)]
    return Group(calls, folder, address)


def require_said_once(group, codes):
    """The error that one of both has said, both having ended with these codes."""
    assert group.wait() == codes
    assert group.output(0) == group.output(1) == ""
    (said,) = (text for text in map(group.errors, (0, 1)) if text)
    assert said.count("\n") == 1
    return said


def test_an_error_that_one_process_meets_is_said_once_and_ends_all(tmp_path):
    out = tmp_path / "out"
    words = ("finetune", MODEL, "--recipe", recipe_in(tmp_path), "--out", out, "--device", "cpu")
    with ranks(tmp_path, *words, "--data", f"{DATA}?bad=2", "--json", out / "j.json") as group:
        said = require_said_once(group, [1, 1])
    assert said.startswith("error: ConfigError: model must accept ")
    assert "batch 3, (float32 [6, 16], int64 [6])" in said
    assert not (out / FILE_NAME).exists()


@pytest.mark.slow
def test_ctrl_c_ends_all(tmp_path):
    started = tmp_path / "started"
    words = ("finetune", MODEL, "--recipe", recipe_in(tmp_path), "--out", tmp_path / "out")
    with ranks(tmp_path, *words, "--data", f"{DATA}?slow=true", STARTED=str(started)) as group:
        while not started.exists():
            time.sleep(0.1)
        for pid in group.pids:
            os.kill(pid, signal.SIGINT)
        said = require_said_once(group, [130, 130])
    assert said.startswith("interrupted; every finished checkpoint is in ")


@pytest.mark.slow
def test_torchrun_learns_what_one_process_with_steps_of_both_does(tmp_path):
    given = {"method": "sde", "width": 2, "bits": 2, "group": 8, "epochs": 4}
    one = quantize.run(MODEL, tmp_path / "one", f"{DATA}?joined=2", device="cpu", **given)
    options = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
               "--standalone", "-m", "signbook", "quantize", MODEL, "--data", DATA,
               "--out", str(tmp_path / "two"), "--device", "cpu", *options]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("file_bytes") == 1
    assert "unused parameters" not in done.stderr  # of which torch would warn
    two = json.loads((tmp_path / "two" / "quantize.json").read_text())
    for alone, both in zip(one["blocks"], two["blocks"], strict=True):
        assert both["name"] == alone["name"] and both["after"] < both["before"]
        for error in ("before", "after"):
            assert both[error] == pytest.approx(alone[error], rel=1e-4)
    with (
        open_container(tmp_path / "one" / FILE_NAME) as a,
        open_container(tmp_path / "two" / FILE_NAME) as b,
    ):
        for entry in a.layers:
            layer = entry.geometry.name
            unequal = a.weight(layer) != b.weight(layer)
            assert unequal.mean() < 0.01, layer  # sums in another order may turn a tie


TOLD = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "here", "MASTER_PORT": "1"}


def test_commands_whose_work_is_not_shared_are_refused():
    text = refused("inspect", "absent", env=TOLD | {"TORCHELASTIC_RUN_ID": "none"})
    assert text.startswith("error: ConfigError: signbook inspect: must run as one process, not as ")
    assert "as 2 of torchrun; only finetune and quantize share their work" in text
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (TOLD | {"TORCHELASTIC_RUN_ID": "none", "RANK": "1"}).items():
            patch.setenv(name, value)
        with pytest.raises(SystemExit, match=r"^1$"):  # the first one says it
            torchrun.join("inspect")


def test_a_job_that_only_sets_the_variables_runs_other_commands():
    assert "absent" in refused("inspect", "absent", env=TOLD)
    assert refused("inspect", "absent", env=TOLD | {"WORLD_SIZE": "1"})
