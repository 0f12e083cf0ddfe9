"""Files in another order than the instance's: a copy is measured, and every figure is the same."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwsim import estimate, simulate
from hwsim.measure.order import in_order_of
from rtl import AcceleratorConfig, rom_text
from tests.hwsim.containers import Maker, write
from tests.hwsim.measure.runs import require_run
from tests.hwsim.programs import SMALL, Net, every_format, network
from vq import SSVQ, Int8, Recipe
from vq.container import ConfigError, ContainerError, Layer, open_container
from vq.container.reorder import write_reordered
from vq.container.rom import rom_name

MEMORY = "ideal:bytes_per_cycle=8,latency=20"


def layers_for_16(*, zeros: bool) -> list[Layer]:
    """Every format in blocks of 16 outputs, ragged ones too, of every kind of layer."""
    make = Maker(2)
    shared = {"codebook": make.codebook(16, 8, signed=False), "codebook_name": "shared"}
    formats = every_format(1, tile_outputs=16)
    return [
        *(layer for layer in formats if zeros or not layer.geometry.zeros),
        make.ssvq("linear_t", (27, 40), 8, 16, op="linear_t", **shared),
        make.ssvq("conv", (20, 8, 3, 3), 8, 16, op="conv2d", **shared),
        make.ssvq("along outputs", (48, 40), 8, 16, axis="out"),
    ]


def comparable(document: dict[str, Any]) -> dict[str, Any]:
    """All but what an engine, and the order, say of themselves."""
    own = ("bit_exact", "wall_seconds", "reordered")
    runs = {
        name: {field: value for field, value in run.items() if field not in own}
        for name, run in document["runs"].items()
    }
    return {**document, "engine": None, "runs": runs}


def in_order(path: Path, rows: int) -> Path:
    """The file as it would have been written for the instance."""
    copy = path.with_name(f"{rows}-{path.name}")
    with open_container(path) as file:
        write_reordered(copy, file, rows)
    return copy


@pytest.mark.parametrize(("array", "rows"), [("8x8", None), ("32x16", 9), ("64x16", None)])
def test_any_array_measures_a_file_of_its_own_order(
    array: str, rows: int | None, tmp_path: Path
) -> None:
    """Weights, bytes, cycles and baselines are those of a file that was written for it."""
    config = AcceleratorConfig.from_mapping({"array": array})
    # With zeros of groups the hardware takes whole blocks only, and 24 outputs are three of 8.
    path = write(tmp_path / "file", layers_for_16(zeros=config.rows == 8))
    before = path.read_bytes()
    settings = {"config": config, "memory": MEMORY, "rows": rows}
    found, own = estimate(path, **settings), estimate(in_order(path, config.rows), **settings)
    assert found["runs"]["compressed"]["reordered"] == {"from": 16, "to": config.rows}
    assert "reordered" not in found["runs"]["int8"] and "reordered" not in str(own)
    assert comparable(found) == comparable(own)
    assert path.read_bytes() == before


@pytest.mark.rtl
def test_the_hardware_gives_the_right_values(tmp_path: Path) -> None:
    path = write(tmp_path / "file", layers_for_16(zeros=True))
    settings: dict[str, Any] = {"config": SMALL, "memory": MEMORY, "rows": 9}
    counted = simulate(path, **settings, check=True)
    for run in counted["runs"].values():
        require_run(run)
    assert counted["runs"]["compressed"]["reordered"] == {"from": 16, "to": 8}
    assert comparable(counted) == comparable(estimate(path, **settings))


@pytest.mark.rtl
def test_a_network_runs_on_another_array(tmp_path: Path) -> None:
    path = network(tmp_path, Net(), (3, 13, 12), Recipe({"*": SSVQ(d=4, k=16), "stem": Int8()}))
    document = simulate(path, config=SMALL, memory=MEMORY, check=True)
    for run in document["runs"].values():
        require_run(run)
    assert document["runs"]["compressed"]["reordered"] == {"from": 16, "to": 8}


def test_a_codebook_in_rom_stays_one(tmp_path: Path) -> None:
    make = Maker(0)
    book = make.codebook(16, 8, signed=False)
    layer = make.ssvq("fc", (40, 64), 8, 16, codebook=book, codebook_name=rom_name(book))
    path = write(tmp_path / "file", [layer])
    config = replace(SMALL, codebook_rom=rom_text(book))
    run = estimate(path, config=config, memory=MEMORY)["runs"]["compressed"]
    assert run["bytes_by"]["codebooks"] == 0 and run["reordered"] == {"from": 16, "to": 8}


def test_layers_of_several_orders(tmp_path: Path) -> None:
    make = Maker(0)
    layers = [make.vq(f"{tile}", (40, 64), 8, 16, tile_outputs=tile) for tile in (8, 16)]
    path = write(tmp_path / "file", layers)
    run = estimate(path, config=SMALL, memory=MEMORY)["runs"]["compressed"]
    assert run["reordered"] == {"from": None, "to": 8}


def test_a_copy_only_where_one_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    Path(tempfile.gettempdir()).mkdir()
    path = write(tmp_path / "file", layers_for_16(zeros=True))
    with open_container(path) as file:
        with in_order_of(file, AcceleratorConfig()) as (same, order):
            assert same is file and order is None and not list(Path(tempfile.tempdir).iterdir())
        with in_order_of(file, SMALL) as (copy, order):
            assert order is not None and (order.from_, order.to) == (16, 8)
            assert np.array_equal(copy.weight("ssvq ragged"), file.weight("ssvq ragged"))
            with pytest.raises(ContainerError, match=rf"^{path}: no layer is called 'x'$"):
                copy.weight("x")  # it goes by the name that the user knows
            assert len(list(Path(tempfile.tempdir).iterdir())) == 1
        assert not list(Path(tempfile.tempdir).iterdir())


def test_sub_vectors_that_would_straddle_blocks(tmp_path: Path) -> None:
    make = Maker(0)
    layers = [make.ssvq(name, (32, 32), 16, 16, axis="out") for name in "ab"]
    path = write(tmp_path / "file", [*layers, make.vq("c", (32, 32), 16, 16)])
    config = AcceleratorConfig(rows=8, columns=16)
    message = (
        r"^accelerator has 2 problems:\n"
        r"- layer 'a': d must divide 8, the rows of the array, as its sub-vectors lie along the "
        r"outputs \(axis 'out'\), not 16\n- layer 'b': "
    )
    with pytest.raises(ConfigError, match=message):
        estimate(path, config=config, memory=MEMORY)
