"""Folders for temporary files, which go when their work ends, however it does."""

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vq.errors import OutputError

__all__ = ["scratch_folder"]

#: What the system says where there is no room.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder that lives as long as the context.

    Raises
    ------
    OutputError
        If there is no place for one, or no room for what is written to it.
    """
    with _remedied():
        folder = tempfile.TemporaryDirectory(prefix="signbook-", ignore_cleanup_errors=True)
    with folder as name:
        try:
            yield Path(name)
        except OutputError:
            raise
        except OSError as error:
            if error.errno not in _FULL:
                raise
            with _remedied():
                raise


@contextmanager
def _remedied() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"temporary files must have a folder with room for them, but {error.strerror}; set "
            "TMPDIR to another"
        ) from error
