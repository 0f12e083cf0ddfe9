"""Documents and folders that commands write."""

import json
from pathlib import Path
from typing import Any

from vq.container import OutputError, atomic_file

__all__ = ["FILE_NAME", "make_folder", "write_json", "write_text"]

#: Name of the container in an output folder.
FILE_NAME = "model.vq.safetensors"


def make_folder(path: Path) -> Path:
    """Create a folder and check that files can be written to it, before any work is done.

    Raises
    ------
    OutputError
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".signbook-write-test"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"{path}: must be a folder that can be written, but {error.strerror}; "
            "choose another with --out"
        ) from error
    return path


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a document; the file appears only when it is complete."""
    write_text(path, json.dumps(document, indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text; the file appears only when it is complete."""
    with atomic_file(path) as file:
        file.write(text.encode())
