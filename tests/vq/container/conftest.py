"""Fixtures: a folder for property tests, and one small file that holds every method."""

from collections.abc import Callable
from pathlib import Path

import pytest

from vq.container import write_container

from .samples import KEPT, Sample, one_of_each


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that properties may share: every example overwrites its file."""
    return tmp_path_factory.mktemp("container")


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid file with every method and some kept tensors. Read-only."""
    path = tmp_path_factory.mktemp("small") / "small.vq.safetensors"
    write_container(path, [s.layer for s in one_of_each()], KEPT)
    return path


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """Write samples to a file and return its path."""

    def write(*samples: Sample, kept=None) -> Path:
        path = tmp_path / "written.vq.safetensors"
        write_container(path, [s.layer for s in samples], kept)
        return path

    return write
