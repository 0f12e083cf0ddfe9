"""What the commands are tried on."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.hwsim.programs import SMALL
from vq.container import Layer, write_container


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "small.vq.safetensors"
    layers = [
        Layer.ssvq(
            f"fc{i}",
            codebook=rng.integers(0, 128, (16, 8)).astype(np.int8),
            indices=rng.integers(0, 16, 64 * 8),
            signs=rng.random((64 * 8, 8)) < 0.5,
            scale=np.float32([0.01]),
            shape=(64, 64),
            tile_outputs=SMALL.rows,
        )
        for i in range(2)
    ]
    write_container(path, layers)
    return path


@pytest.fixture
def rom(tmp_path: Path) -> Path:
    path = tmp_path / "rom.npy"
    np.save(path, np.random.default_rng(1).integers(0, 128, (16, 8)).astype(np.int8))
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Settings of the instance that is built already; files above fit it."""
    settings = {"array": f"{SMALL.rows}x{SMALL.columns}", **SMALL.to_mapping()}
    del settings["rows"], settings["columns"]
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path
