"""The simulate document: complete, consistent, bit-exact."""

from pathlib import Path

import numpy as np
import pytest

from hwsim import simulate
from hwsim.measure import _as_int8
from rtl import STALL_CAUSES, StreamerConfig
from tests.hwsim.containers import Maker, write
from vq.container import ConfigError, Container, open_container

pytestmark = pytest.mark.rtl


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network of every method, with ragged shapes and a shared codebook."""
    make = Maker(1)
    book = make.codebook(16, 8, signed=False)
    layers = []
    for block in range(4):
        shared = {"codebook": book, "codebook_name": "shared"} if block in (1, 2) else {}
        layers += [
            make.ssvq(f"{block}.qkv", (192, 64), 8, 16, **shared),
            make.vq(f"{block}.proj", (64, 61), 4, 200),
            make.ssvq(f"{block}.fc", (100, 9, 3, 3), 16, 250, op="conv2d"),
            make.ssvq(f"{block}.parity", (30, 100), 4, 16, parity=True),
            make.codes(f"{block}.codes", (30, 100), 2 + block % 3, 7, zeros=False),
            make.codes(f"{block}.zeros", (48, 72), 2 + block % 3, 32, zeros=True),
            make.int8(f"{block}.head", (10, 63)),
        ]
    return write(tmp_path_factory.mktemp("mixed") / "mixed.vq.safetensors", layers)


def require_run(run: dict) -> None:
    assert run["bit_exact"] is True
    assert run["busy_cycles"] + sum(run["stall_cycles"].values()) == run["cycles"]
    assert sum(run["bytes_by"].values()) == run["bytes_read"]
    assert list(run["stall_cycles"]) == list(STALL_CAUSES)
    for field in ("cycles", "bytes_read", "busy_cycles"):
        assert sum(row[field] for row in run["layers"]) == run[field]
    for row in run["layers"]:
        assert row["busy_cycles"] + sum(row["stall_cycles"].values()) == row["cycles"]


def test_document(mixed: Path) -> None:
    progress: list[tuple[str, int, int]] = []
    document = simulate(mixed, progress=lambda *facts: progress.append(facts))
    assert list(document) == [
        "schema", "engine", "accelerator", "memory", "runs", "speedup", "traffic_ratio",
    ]  # fmt: skip
    assert (document["schema"], document["engine"]) == ("signbook.simulate/1", "rtl")
    assert document["accelerator"]["bus_bits"] == 128
    assert document["memory"]["name"] == "ideal"
    ours, int8 = document["runs"]["compressed"], document["runs"]["int8"]
    for run in (ours, int8):
        assert list(run) == [
            "cycles", "bytes_read", "bytes_written", "bursts", "stall_cycles", "busy_cycles",
            "bit_exact", "wall_seconds", "energy_pj", "bytes_by", "layers",
        ]  # fmt: skip
        require_run(run)
    assert [row["name"] for row in ours["layers"]] == [row["name"] for row in int8["layers"]]
    assert {row["method"] for row in int8["layers"]} == {"int8"}
    # A shared codebook is read again when another one was loaded in between.
    assert ours["bytes_by"]["codebooks"] == 4 * (128 + 800 + 4000 + 64)
    assert ours["bytes_by"]["scales"] == 4 * 48 * 3  # zeros of groups
    assert document["speedup"] == int8["cycles"] / ours["cycles"]
    assert document["traffic_ratio"] == int8["bytes_read"] / ours["bytes_read"]
    for name in ("compressed", "int8"):
        last = [facts for facts in progress if facts[0] == name][-1]
        assert last[1] == last[2] == document["runs"][name]["bytes_read"] // 16


def test_without_baseline(mixed: Path) -> None:
    document = simulate(mixed, methods=(), memory="ideal:bytes_per_cycle=4,latency=50")
    assert list(document["runs"]) == ["compressed"]
    assert document["speedup"] is None and document["traffic_ratio"] is None
    require_run(document["runs"]["compressed"])


def test_wrong_weights_are_seen(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One wrong weight in the last layer is enough."""
    decode = Container.stream_order

    def wrong(self: Container, name: str) -> np.ndarray:
        weights = decode(self, name).copy()
        if name == "3.head":
            weights[-1] ^= 1
        return weights

    monkeypatch.setattr(Container, "stream_order", wrong)
    document = simulate(mixed, methods=())
    assert document["runs"]["compressed"]["bit_exact"] is False


def test_int8_twin_holds_the_same_integers(mixed: Path, tmp_path: Path) -> None:
    with open_container(mixed) as container:
        twin = write(tmp_path / "twin.vq.safetensors", _as_int8(container))
        with open_container(twin) as other:
            for entry in container.layers:
                name = entry.geometry.name
                assert np.array_equal(container.integers(name), other.integers(name))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"methods": ("int4",)}, r"^methods must be of int8, not 'int4'$"),
        ({"memory": "hbm2"}, r"^memory must be 'ideal', not 'hbm2'"),
        ({"config": StreamerConfig(index_bits_max=5)}, r"layer '0.proj': k must be at most 32"),
    ],
)
def test_refused_before_simulation(
    mixed: Path, arguments: dict, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hwsim.measure.run", None)
    with pytest.raises(ConfigError, match=message):
        simulate(mixed, **arguments)
