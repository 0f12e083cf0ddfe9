"""Where the data and checkpoints lie that are not part of this package."""

import os
from pathlib import Path

from vq.errors import ConfigError

__all__ = ["data_file", "data_folder"]

_VARIABLE = "SIGNBOOK_DATA"


def data_folder() -> Path:
    """Folder of data sets: the environment variable SIGNBOOK_DATA, else ``../shared/data``.

    The second is relative to the folder that holds this package. It need not exist.
    """
    named = os.environ.get(_VARIABLE)
    return Path(named) if named else Path(__file__).parents[2].parent / "shared" / "data"


def data_file(name: str) -> Path:
    """Path of one file below :func:`data_folder`; ``name`` may hold a glob.

    Of several files that match, the largest.

    Raises
    ------
    ConfigError
        If it does not exist.
    """
    found = sorted(data_folder().glob(name), key=lambda path: path.stat().st_size)
    if not found:
        raise ConfigError(
            f"data file {name!r} must exist in {data_folder()}, not be absent; "
            f"set {_VARIABLE} to the folder that holds it"
        )
    return found[-1]
