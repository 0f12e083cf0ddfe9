"""Running one tool: found, run to its end, and its last words where it fails."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from vq.errors import OutputError, SimulationError
from vq.native.scratch import scratch_folder

__all__ = ["command_of", "run_tool"]

_LAST_LINES = 15
_END_SECONDS = 1.0
#: What tools say where there is no room for what they write.
_FULL = re.compile(
    "No space left on device|Disk quota exceeded|File size limit exceeded|File too large"
)


def command_of(variable: str, default: str) -> list[str]:
    """Words of a command that an environment variable may name, such as ``CC="ccache cc -m64"``.

    Raises
    ------
    SimulationError
        If the variable is no command: a quotation that does not end.
    """
    text = os.environ.get(variable, "")
    try:
        return shlex.split(text) or shlex.split(default)
    except ValueError as error:
        raise SimulationError(
            f"${variable} must be a command as a shell reads it, not {text!r}: a quotation in it "
            "does not end; set it anew, or unset it"
        ) from error


def run_tool(
    command: Sequence[str],
    folder: Path,
    *,
    name: str,
    remedy: str,
    environment: Mapping[str, str] = os.environ,
) -> str:
    """Run a command to its end in a folder and return what it printed.

    Where it is interrupted, all that it has started ends, and its temporary files go.

    Parameters
    ----------
    name : str
        What errors call it.
    remedy : str
        What errors say of a tool that is not there.

    Raises
    ------
    SimulationError
        If there is no such tool, it cannot be started, or it fails; with its last lines.
    OutputError
        If it finds no room for what it writes.
    """
    executable = shutil.which(command[0], path=environment.get("PATH"))
    if executable is None:
        raise SimulationError(f"{command[0]} must be on PATH, but it is not; {remedy}")
    with scratch_folder() as scratch:
        try:
            process = subprocess.Popen(
                [executable, *command[1:]],
                cwd=folder,
                env={**environment, "TMPDIR": str(scratch)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            raise SimulationError(
                f"{executable} must be a program, but it cannot be started: {error.strerror}; "
                f"{remedy}"
            ) from error
        with process:
            try:
                said, _ = process.communicate()
            except BaseException:
                _end(process)
                raise
    if process.returncode != 0:
        if full := _FULL.search(said):
            raise OutputError(
                f"{name} must have room for what it writes, but says: {full[0]}; set TMPDIR and "
                "SIGNBOOK_CACHE to folders with more"
            )
        raise SimulationError(
            f"{name} must succeed, not end with {_ended(process.returncode)}:\n{last_lines(said)}"
        )
    return said


def _end(process: subprocess.Popen[str]) -> None:
    """End a tool and what it has started, and wait until none of it writes any more."""
    deadline = time.monotonic() + _END_SECONDS
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(0.01)


def last_lines(text: str) -> str:
    """The end of what a tool printed, without empty lines."""
    lines = [line for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-_LAST_LINES:]) or "(it printed nothing)"


def _ended(status: int) -> str:
    if status >= 0:
        return f"status {status}"
    killed = " (the system may lack memory)" if -status == signal.SIGKILL else ""
    return f"signal {-status}{killed}"
