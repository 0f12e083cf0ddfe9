"""What the streamer's testbench is told, and what is read of its answer."""

import json
from pathlib import Path

import numpy as np
import pytest

from hwsim.simulator.streamer import BusCounts, Job, Result
from hwsim.simulator.traffic import Traffic

BUS = {"read_bytes": 64, "beats": 8, "bursts": 1, "first_beat_cycle": 10, "last_beat_cycle": 25}


def test_jobs_are_plain_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    job = Job(Path("image"), [1 << 300], traffic=Traffic(seed=3, error_granules=(5,)))
    told = json.loads(job.to_json(128))
    # The simulator runs in a folder of its own, and descriptors are wider than its words.
    assert (told["image"], told["descriptors"]) == (str(tmp_path / "image"), [1 << 300])
    assert Traffic(**told["traffic"] | {"error_granules": (5,)}) == job.traffic


def test_layers_that_were_refused_have_no_weights(tmp_path: Path) -> None:
    facts = {"weight_beats": [2, 1], "bus": BUS, "cycles": 40}
    (tmp_path / "result.json").write_text(json.dumps(facts))
    np.arange(12, dtype=np.int8).tofile(tmp_path / "weights.bin")
    reports = [{"status": status} for status in ("OK", "BAD_GEOMETRY", "READ_ERROR")]
    result = Result.load(tmp_path, reports, 4, 0.5)
    weights = [layer.weights.tolist() for layer in result.layers]
    assert weights == [list(range(8)), [], list(range(8, 12))]
    assert (result.cycles, result.bus.utilisation) == (40, 0.5)


def test_a_bus_without_beats_is_idle() -> None:
    assert BusCounts(0, 0, 0, 0, 0).utilisation == 0
