"""Rows on disk, each as soon as it is there."""

import fcntl
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hwsim.sweep.space import Point
from vq.container import OutputError
from vq.errors import ResumeError

__all__ = ["Journal"]


class Journal:
    """A file of rows, one JSON object in each line, that only grows.

    A row that is in it survives whatever stops the process or the machine. A last line that was not
    finished is dropped when the file is opened. One process at a time may have it open.

    Parameters
    ----------
    path : Path

    Attributes
    ----------
    rows : dict of Point to dict
        In the order in which they were finished.

    Raises
    ------
    ResumeError
        If another process has it open, or a line that was finished is no row.
    OutputError
        If it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rows: dict[Point, dict[str, Any]] = {}
        try:
            self._file = path.open("a+b", buffering=0)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file.seek(0)
            *lines, torn = self._file.read().split(b"\n")
            for number, line in enumerate(lines, 1):
                self._read(number, line)
            if torn:
                self._file.truncate(sum(len(line) + 1 for line in lines))
        except BlockingIOError:
            self.close()
            raise ResumeError(
                f"{path}: must be free, but another sweep is writing it; "
                "let it end, or choose another --out"
            ) from None
        except BaseException:
            self.close()
            raise

    def append(self, point: Point, row: dict[str, Any]) -> None:
        """Keep a row; it is on the disk when this returns.

        Raises
        ------
        OutputError
            If it cannot be written. The rows before it are kept.
        """
        left = memoryview(json.dumps(row, allow_nan=False).encode() + b"\n")
        try:
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._unwritable(error) from error
        self.rows[point] = row

    def close(self) -> None:
        """Let others open it."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _read(self, number: int, line: bytes) -> None:
        try:
            row = json.loads(line)
            point = Point.from_json(row["point"])
            hash(point), row["status"]
        except (ValueError, KeyError, TypeError, AttributeError):
            text = line[:40].decode(errors="replace")
            raise ResumeError(
                f"{self._path}: line {number} must be a row of a sweep, not {text!r}; "
                "remove the line, and its point is evaluated again"
            ) from None
        self.rows[point] = row

    def _unwritable(self, error: OSError) -> OutputError:
        return OutputError(
            f"{self._path}: must be writable, not refused ({error.strerror or error}); "
            "every finished point is kept, go on with --resume"
        )
