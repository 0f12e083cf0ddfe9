"""Checkpoints and data sets that are not part of the repository."""

from pathlib import Path

import pytest

from signbook.data import data_folder


def shared(name: str) -> Path:
    """Path of one shared file; the test is skipped where it is absent."""
    path = data_folder() / name
    if not path.exists():
        pytest.skip(f"{name} is not in {data_folder()}; set SIGNBOOK_DATA")
    return path
