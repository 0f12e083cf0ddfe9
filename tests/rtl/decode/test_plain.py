"""Instances for int8 alone: they run int8 as all others do, and refuse everything else by name."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwsim.simulator.accelerator import Surroundings, run_program
from hwsim.simulator.traffic import Traffic
from rtl import AcceleratorConfig, StreamerConfig
from rtl.program import RunStatus
from tests.hwsim.containers import Maker
from tests.hwsim.programs import SMALL, Layers
from vq.container import ConfigError, Layer

ALONE = replace(SMALL, int8_only=1)
TILE = {"tile_outputs": SMALL.rows}


def int8(name: str, shape: tuple[int, int]) -> Layer:
    rng = np.random.default_rng(len(name))
    integers = rng.integers(-128, 128, shape).astype(np.int8)
    return Layer.int8(name, integers=integers, scale=np.full(1, 0.02, np.float32), **TILE)


@pytest.mark.rtl
@pytest.mark.parametrize("rows", [1, 5])
def test_int8_runs(tmp_path: Path, rows: int) -> None:
    layers = [int8("whole", (16, 32)), int8("ragged", (13, 29)), int8("one tile", (8, 8))]
    work = Layers(tmp_path, layers, rows, ALONE)
    for traffic in (Traffic(), Traffic(seed=1, ar_idle=0.5, r_idle=0.4)):
        for outcome in work.run(Surroundings(traffic=traffic, runs=2)):
            work.require_exact(outcome)


def test_other_methods_are_refused(tmp_path: Path) -> None:
    layers = [Maker().ssvq("first", (16, 32), 8, 16, **TILE), int8("second", (16, 32))]
    message = r"- layer 'first': method must be int8 \(int8_only = 1\), not ssvq$"
    with pytest.raises(ConfigError, match=message):
        Layers(tmp_path, layers, 1, ALONE)


@pytest.mark.rtl
@pytest.mark.parametrize("method", ["ssvq", "parity", "vq", "int4"])
def test_hardware_refuses_other_methods(tmp_path: Path, method: str) -> None:
    make = Maker()
    other = {
        "ssvq": lambda: make.ssvq("x", (16, 32), 8, 16, **TILE),
        "parity": lambda: make.ssvq("x", (16, 32), 8, 16, parity=True, **TILE),
        "vq": lambda: make.vq("x", (16, 32), 4, 16, **TILE),
        "int4": lambda: make.codes("x", (16, 32), 4, 16, zeros=False, **TILE),
    }[method]()
    work = Layers(tmp_path, [int8("first", (16, 32)), other], 1, SMALL)
    (outcome,) = run_program(ALONE, work.program, work.image())
    assert (outcome.status, outcome.failed_layer) == (RunStatus.METHOD, 1)


@pytest.mark.parametrize("config", [AcceleratorConfig, StreamerConfig])
def test_it_is_a_yes_or_a_no(config: type) -> None:
    with pytest.raises(ConfigError, match=r"int8_only must be 0 or 1, not 2"):
        config(int8_only=2)
