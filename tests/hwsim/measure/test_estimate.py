"""The document of the model: that of the RTL, in every number."""

from pathlib import Path

import pytest
from torch import nn

import vq
from hwsim import estimate, estimate_turns, simulate
from hwsim.cycles import library as compiled
from hwsim.cycles import predict
from hwsim.measure.document import Measurement
from hwsim.simulator.accelerator import Surroundings
from signbook.report import render_report
from tests.hwsim.containers import Maker, write
from tests.hwsim.programs import SMALL, Layers, Net, every_format, network
from vq import SSVQ, Int8, Recipe
from vq.activations.rounding import Rounding
from vq.activations.runtime import attach, detach
from vq.container import ConfigError, SimulationError

MEMORY = "ideal:bytes_per_cycle=8,latency=20"


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("mixed") / "mixed.vq.safetensors", every_format(1))


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = Recipe({"*": SSVQ(d=4, k=16, tile_outputs=8), "stem": Int8(tile_outputs=8)})
    return network(tmp_path_factory.mktemp("net"), Net(), (3, 13, 12), recipe)


def comparable(document: dict) -> dict:
    """All but what an engine says of itself."""
    runs = {
        name: {k: v for k, v in run.items() if k not in ("bit_exact", "wall_seconds")}
        for name, run in document["runs"].items()
    }
    return {k: v for k, v in document.items() if k not in ("engine", "runs")} | {"runs": runs}


@pytest.mark.rtl
@pytest.mark.parametrize(("file", "rows"), [("mixed", None), ("mixed", 70), ("net", None)])
def test_document(file: str, rows: int | None, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(file)
    settings = {"config": SMALL, "memory": MEMORY, "rows": rows}
    predicted = estimate(path, **settings)
    counted = simulate(path, **settings, check=True)
    assert (predicted["engine"], counted["engine"]) == ("model", "rtl")
    assert list(predicted) == list(counted)
    assert comparable(predicted) == comparable(counted)
    for run in predicted["runs"].values():
        assert run["bit_exact"] is None and run["wall_seconds"] > 0


@pytest.mark.rtl
@pytest.mark.parametrize(
    "memory", ["ddr4-2400:clock_mhz=700", "hbm2:controller_latency_ns=400", "lpddr5-6400"]
)
def test_energy(mixed: Path, memory: str) -> None:
    """Commands that a DRAM gets in a run, and the time that it takes: as the RTL sees them."""
    settings = {"config": SMALL, "memory": memory, "rows": 9}
    predicted, counted = estimate(mixed, **settings), simulate(mixed, **settings)
    assert comparable(predicted) == comparable(counted)
    for run in counted["runs"].values():
        assert list(run["energy_by"]) == ["activate", "read", "write", "refresh", "background"]
        assert run["energy_pj"] == pytest.approx(sum(run["energy_by"].values()), rel=1e-12)
        assert min(run["energy_by"][cause] for cause in ("activate", "read", "background")) > 0
    ours, int8 = counted["runs"]["compressed"], counted["runs"]["int8"]
    # Reads are paid by the column, so they cost as many times more as there are more columns.
    ratio = int8["energy_by"]["read"] / ours["energy_by"]["read"]
    assert ratio == pytest.approx(int8["bytes_read"] / ours["bytes_read"], rel=0.02)


@pytest.mark.rtl
def test_energy_is_that_of_one_run(tmp_path: Path) -> None:
    """Runs one after another on one memory do not add up."""
    layers = Layers(tmp_path, every_format(1), 1)
    first, second = layers.run(Surroundings(memory="ddr4-2400", runs=2))
    assert first.energy is not None and second.energy is not None
    assert second.energy.read_pj == pytest.approx(first.energy.read_pj, rel=0.01)
    assert second.energy.background_pj == pytest.approx(first.energy.background_pj, rel=0.05)


@pytest.mark.rtl
def test_check_names_what_differs(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(config, program, memory):
        return predict(config, program, type(memory)(bytes_per_cycle=8, latency_cycles=19))

    monkeypatch.setattr("hwsim.measure.simulate.predict", wrong)
    with pytest.raises(SimulationError, match=r"^cycle model must count what the RTL counts:\n"):
        simulate(mixed, config=SMALL, memory=MEMORY, methods=(), check=True)


def test_progress_ends_with_all_beats(mixed: Path) -> None:
    told: list[tuple[str, int, int]] = []
    document = estimate(
        mixed, config=SMALL, memory=MEMORY, progress=lambda *facts: told.append(facts)
    )
    for name in ("compressed", "int8"):
        beats = document["runs"][name]["bytes_read"] // 8
        assert (name, beats, beats) in told


def test_refused_as_by_simulate(mixed: Path) -> None:
    for settings, message in (
        ({"methods": ("int5",)}, r"^methods must be of int8, int4, int3, int2, not 'int5'$"),
        ({"rows": 0}, r"^rows must be at least 1, not 0$"),
        ({"memory": "ideal:latency=0"}, r"latency must be at least 1 cycle, not 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            estimate(mixed, **({"config": SMALL} | settings))


def test_a_large_layer_takes_no_time(tmp_path: Path) -> None:
    """Millions of cycles, most of which have been seen before."""
    path = write(tmp_path / "large.vq.safetensors", [Maker(0).vq("fc", (1024, 1024), 8, 256)])
    run = estimate(path, rows=256, methods=())["runs"]["compressed"]
    assert run["cycles"] > 900_000
    assert run["cycles"] / run["wall_seconds"] > 2e6  # more than 10 times that, if alone


def test_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNBOOK_CACHE", str(tmp_path))
    monkeypatch.setenv("CC", "no-such-compiler")
    compiled.library.cache_clear()
    with pytest.raises(SimulationError, match=r"^no-such-compiler must be on PATH"):
        compiled.library()
    monkeypatch.setenv("CC", "false")
    with pytest.raises(SimulationError, match=r"^false must succeed, not end with status 1"):
        compiled.library()
    monkeypatch.undo()
    compiled.library.cache_clear()


def test_what_remains_at_run_time_is_named_and_counted(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4))
    attach(model, Rounding(4), ["0", "2"])
    vq.compress_(model, Recipe({"*": Int8(tile_outputs=8)}))
    vq.save(model, path := tmp_path / "a.vq.safetensors")
    remains = [
        {"kind": "rounding", "layers": ["0", "2"], "bytes": 4, "macs_per_token": 16 + 8}
    ]  # fmt: skip
    document = estimate(path, config=SMALL, memory=MEMORY)
    assert document["runtime"] == remains
    assert [layer["name"] for layer in document["runs"]["compressed"]["layers"]] == ["0", "2"]
    detach(model)
    vq.save(model, plain := tmp_path / "b.vq.safetensors")
    without = estimate(plain, config=SMALL, memory=MEMORY)
    assert "runtime" not in without
    assert comparable(without)["runs"] == comparable(document)["runs"]
    turns = estimate_turns([plain, path], config=SMALL, memory=MEMORY)
    assert turns["runtime"] == [[], remains]
    assert "runtime" not in estimate_turns([plain], config=SMALL, memory=MEMORY)
    assert "What remains at run time" in render_report(
        [("a", Measurement.model_validate(document))]
    )
