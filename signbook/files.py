"""Documents and folders that commands write, and what they must not write to."""

import fcntl
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vq.container import OutputError, atomic_file
from vq.errors import ConfigError

__all__ = [
    "FILE_NAME",
    "check_outputs",
    "json_text",
    "make_folder",
    "output_folder",
    "refuse_inputs",
    "write_json",
    "write_text",
]

Outputs = Sequence[tuple[str, Path | None]]
"""Options and the files that they name; None where one is not given."""
Inputs = Iterable[str | os.PathLike[str] | None]
"""Files to be read, and names of models, data, memories and workloads that may stand for some."""

#: Where a document goes to standard output; anywhere else, ``-`` is the name of a file.
_STANDARD = ("--json", "-")
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
        with tempfile.TemporaryFile(dir=path):  # a name of its own: other processes try, too
            pass
    except OSError as error:
        raise OutputError(
            f"{path}: must be a folder that can be written, but {error.strerror}; "
            "choose another with --out"
        ) from error
    return path


def refuse_inputs(outputs: Outputs, inputs: Inputs) -> None:
    """Refuse outputs that are inputs, too, or each other, by whatever path or link.

    Raises
    ------
    ConfigError
    """
    read = [path for given in inputs if given is not None for path in _files_of(given)]
    written: list[tuple[str, Path]] = []
    for option, path in outputs:
        if path is None or (option, str(path)) == _STANDARD:
            continue
        for source in read:
            if _is_same(path, source):
                raise ConfigError(
                    f"{option} must not be a file that is read, not {path}: it is {source}; "
                    "choose another"
                )
        for other, taken in written:
            if _is_same(path, taken):
                raise ConfigError(f"{option} must be another file than that of {other}, not {path}")
        written.append((option, path))


def check_outputs(outputs: Outputs, inputs: Inputs) -> None:
    """Refuse outputs that cannot be written, or are inputs, before any work is done.

    Raises
    ------
    ConfigError
        As :func:`refuse_inputs`.
    OutputError
        If there is no such folder, it cannot be written to, or the place is taken by what is no
        file.
    """
    refuse_inputs(outputs, inputs)
    for option, path in outputs:
        if path is None or (option, str(path)) == _STANDARD:
            continue
        if os.path.exists(path) and not os.path.isfile(path):
            kind = "a folder" if os.path.isdir(path) else "a device"
            raise OutputError(f"{path}: must be a file to write, not {kind}; give {option} another")
        try:
            # As it will be written: its name may be too long.
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
                pass
        except OSError as error:
            raise OutputError(
                f"{path}: must lie in a folder that can be written, but {error.strerror}; "
                f"give {option} another"
            ) from error


@contextmanager
def output_folder(folder: Path, outputs: Outputs, inputs: Inputs) -> Iterator[None]:
    """Make a folder, check all outputs, and keep the folder from other runs until the block ends.

    A folder that is new, and in which a block that fails has left nothing, goes again.

    Raises
    ------
    ConfigError
        As :func:`refuse_inputs`.
    OutputError
        As :func:`check_outputs`, or if another run is writing to the folder.
    """
    inputs = list(inputs)
    refuse_inputs(outputs, inputs)
    new = not os.path.exists(folder)
    make_folder(folder)
    try:
        check_outputs(outputs, inputs)
        with _locked(folder):
            yield
    except BaseException:
        for path in (*sorted(folder.rglob("*"), reverse=True), folder) if new else ():
            with suppress(OSError):  # a file, or a folder that holds one
                path.rmdir()
        raise


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    place = os.open(folder, os.O_RDONLY)  # the folder is its own lock file: nothing stays behind
    try:
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(
                f"{folder}: must be used by one run at a time, but another is writing to it; wait "
                "for it, or choose another --out"
            ) from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(place)


def _files_of(given: str | os.PathLike[str]) -> Iterator[Path]:
    """Files that a path, or a name of a model, of data or of anything else, may stand for."""
    text = os.fspath(given)
    yield Path(text)
    kind, _, rest = text.partition(":")
    if kind == "py":
        path, _, options = rest.partition("?")
        module = path.partition(":")[0].replace(".", "/")
        for folder in (".", *sys.path):
            yield from (Path(folder, f"{module}.py"), Path(folder, module, "__init__.py"))
        yield from (Path(option.partition("=")[2]) for option in options.split("&"))
    elif kind == "hf" and os.path.isdir(rest):
        with suppress(OSError):
            yield from Path(rest).iterdir()
    else:
        yield Path(kind)  # settings may follow a path


def _is_same(a: Path, b: Path) -> bool:
    try:
        return os.path.samefile(a, b)
    except OSError:  # one of them is not there yet
        return not os.path.exists(b) and os.path.realpath(a) == os.path.realpath(b)


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a document; the file appears only when it is complete."""
    write_text(path, json_text(document))


def json_text(document: dict[str, Any]) -> str:
    """A document as its file has it."""
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def write_text(path: Path, text: str) -> None:
    """Write a text; the file appears only when it is complete."""
    with atomic_file(path) as file:
        file.write(text.encode())
