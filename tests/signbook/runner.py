"""The command line in this process: as fast as the command, and as strict as a shell."""

import io
import os
import signal
import sys
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from unittest import mock

import pytest

from signbook.cli import main


@dataclass(frozen=True)
class Done:
    """What a shell sees of a command: its exit status, and what it wrote."""

    returncode: int
    stdout: str
    stderr: str


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(*arguments: object, env: dict[str, str] | None = None, terminal: bool = False) -> Done:
    """Run ``signbook ARGUMENTS``, 200 columns wide; outputs may be a terminal.

    No error may escape it, and no warning.
    """
    kind = _Terminal if terminal else io.StringIO
    out, err = kind(), kind()
    words = ["signbook", *map(str, arguments)]
    interrupt = signal.getsignal(signal.SIGINT)
    with (
        ExitStack() as stack,
        mock.patch.dict(os.environ, {"COLUMNS": "200", **(env or {})}),
        mock.patch.object(sys, "argv", words),
        mock.patch("vq.progress.PATIENCE", 0),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as exited,
    ):
        stack.callback(signal.signal, signal.SIGINT, interrupt)  # who is stopped ignores it
        main()
    return Done(exited.value.code or 0, out.getvalue(), err.getvalue())  # type: ignore[arg-type]


def refused(*arguments: object, env: dict[str, str] | None = None) -> str:
    """Run a command that must fail with status 1 and one error; return its text."""
    done = run(*arguments, env=env)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("error: ")
    return done.stderr
