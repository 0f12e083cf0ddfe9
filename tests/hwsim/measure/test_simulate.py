"""The simulate document: complete, consistent, bit-exact."""

from pathlib import Path

import numpy as np
import pytest

from hwsim import simulate
from rtl import AcceleratorConfig
from tests.hwsim.containers import Maker, write
from tests.hwsim.measure.runs import require_run
from tests.hwsim.programs import SMALL, Net, every_format, network
from vq import SSVQ, Int8, Recipe
from vq.container import ConfigError, Container, SimulationError

pytestmark = pytest.mark.rtl
MEMORY = "ideal:bytes_per_cycle=8,latency=20"


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Layers of every format, and a codebook that two of them share."""
    make, tile = Maker(1), {"tile_outputs": SMALL.rows}
    shared = {"codebook": make.codebook(16, 8, signed=False), "codebook_name": "shared"}
    layers = [make.ssvq(f"{name}", (24, 64), 8, 16, **shared, **tile) for name in "ab"]
    return write(
        tmp_path_factory.mktemp("mixed") / "mixed.vq.safetensors", [*layers, *every_format(1)]
    )


def test_document(mixed: Path) -> None:
    progress: list[tuple[str, int, int]] = []
    document = simulate(
        mixed, config=SMALL, memory=MEMORY, progress=lambda *facts: progress.append(facts)
    )
    assert list(document) == [
        "schema", "engine", "accelerator", "memory", "runs", "speedup", "traffic_ratio",
    ]  # fmt: skip
    assert (document["schema"], document["engine"]) == ("signbook.simulate/2", "rtl")
    assert AcceleratorConfig(**document["accelerator"]) == SMALL
    assert document["memory"]["name"] == "ideal"
    ours, int8 = document["runs"]["compressed"], document["runs"]["int8"]
    for run in (ours, int8):
        assert list(run) == [
            "cycles", "bytes_read", "bytes_written", "bursts", "stall_cycles", "busy_cycles",
            "bit_exact", "wall_seconds", "energy_pj", "energy_by", "logic_pj", "logic_by",
            "bytes_by", "layers",
        ]  # fmt: skip
        require_run(run)
        assert run["energy_pj"] is None and run["energy_by"] is None
        assert run["logic_pj"] == pytest.approx(sum(run["logic_by"].values()))
    assert [row["name"] for row in ours["layers"]] == [row["name"] for row in int8["layers"]]
    assert {row["method"] for row in int8["layers"]} == {"int8"}
    assert [row["macs"] for row in ours["layers"]] == [row["weights"] for row in ours["layers"]]
    # The shared codebook is read once, each of the others once, too.
    books = 16 * 8 + 16 * 8 + 64 * 4 + 16 * 4 + 16 * 8 + 256 * 8
    assert ours["bytes_by"]["codebooks"] == books
    assert document["speedup"] == int8["cycles"] / ours["cycles"]
    assert document["traffic_ratio"] == int8["bytes_read"] / ours["bytes_read"]
    for name in ("compressed", "int8"):
        last = [facts for facts in progress if facts[0] == name][-1]
        assert last[1] == last[2] == document["runs"][name]["bytes_read"] // 8


def test_rows(mixed: Path) -> None:
    document = simulate(mixed, config=SMALL, memory=MEMORY, rows=100, methods=())
    assert list(document["runs"]) == ["compressed"]
    assert document["speedup"] is None and document["traffic_ratio"] is None
    run = document["runs"]["compressed"]
    require_run(run)
    assert {row["m"] for row in run["layers"]} == {100}
    assert [row["macs"] for row in run["layers"]] == [100 * r["weights"] for r in run["layers"]]


def test_network(tmp_path: Path) -> None:
    recipe = Recipe({"*": SSVQ(d=4, k=16, tile_outputs=8), "stem": Int8(tile_outputs=8)})
    document = simulate(network(tmp_path, Net(), (3, 13, 12), recipe), config=SMALL, memory=MEMORY)
    for run in document["runs"].values():
        require_run(run)
        moved = [row for row in run["layers"] if row["method"] == "none"]
        assert len(moved) == 2 and all(row["macs"] == 0 for row in moved)  # shortcut and pooling


def test_wrong_weights_are_seen(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One wrong weight in the last layer is enough."""
    decode = Container.stream_order

    def wrong(self: Container, name: str) -> np.ndarray:
        weights = decode(self, name).copy()
        if name == "int8 ragged":
            weights[0] ^= 64
        return weights

    monkeypatch.setattr(Container, "stream_order", wrong)
    document = simulate(mixed, config=SMALL, memory=MEMORY, methods=())
    assert document["runs"]["compressed"]["bit_exact"] is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"methods": ("int5",)}, r"^methods must be of int8, int4, int3, int2, not 'int5'$"),
        ({"memory": "hbm"}, r"^memory must be one of .*, not 'hbm' \(did you mean 'hbm2'\?\)$"),
        ({"rows": 0}, r"^rows must be at least 1, not 0$"),
        (
            {"config": AcceleratorConfig(**SMALL.to_mapping() | {"index_bits_max": 5})},
            r"layer 'vq': k must be at most 32",
        ),
    ],
)
def test_refused_before_simulation(
    mixed: Path, arguments: dict, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hwsim.measure.simulate.run_program", None)
    with pytest.raises(ConfigError, match=message):
        simulate(mixed, **({"config": SMALL} | arguments))


def test_failed_run_names_the_layer(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwsim.measure.simulate.DEFAULT_TIMEOUT_CYCLES", 300)
    with pytest.raises(SimulationError, match="layer 'a': status must be OK, not STALLED"):
        simulate(mixed, config=SMALL, memory="ideal:bytes_per_cycle=8,latency=5000", methods=())
