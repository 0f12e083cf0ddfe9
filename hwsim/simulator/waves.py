"""Waveforms of a simulation, as Verilator writes them in the format FST."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vq.container import OutputError

__all__ = ["FLAGS", "LIBRARIES", "WRITER_GAVE_UP", "Waves", "readable", "waves_at"]

_SOURCE = Path(__file__).with_name("source")
#: Of Verilator. A bus of a thousand bits is one signal, memories have no place in a waveform, and
#: the ports of the top are there once.
FLAGS = (
    "--trace-fst", "--no-trace-top", "--trace-max-width", "8192", "--trace-max-array", "1",
)  # fmt: skip
#: Files beside a build in the place of liblz4 and zlib, which the writer includes and links:
#: headers with all that it calls, and archives of nothing.
LIBRARIES = {
    **{file: (_SOURCE / file).read_text() for file in ("lz4.h", "zlib.h")},
    **dict.fromkeys(("liblz4.a", "libz.a"), "!<arch>\n"),
}
#: What the writer says before it ends the simulation, because what it wrote is not there.
WRITER_GAVE_UP = "FST_CHECK"
#: Names that no source has: of expressions, and of what passes through a module.
_NAMELESS = re.compile(r"\\(\$\S+|port\$\d+\$\d+) ")
_HEADER = 0
#: Of a block's length, which counts itself.
_LENGTH_BYTES = 8


def readable(verilog: str) -> str:
    """The same design, whose signals without a name of their own begin with ``_``.

    Verilator leaves such signals out of waveforms.
    """
    return _NAMELESS.sub(lambda found: "_" + re.sub(r"\W", "_", found[1]) + " ", verilog)


class Waves:
    """Where a simulator writes to.

    Attributes
    ----------
    path : Path
        A temporary name beside the file to be.
    """

    def __init__(self, path: Path, target: Path) -> None:
        self.path, self._target = path, target

    @property
    def whole(self) -> bool:
        """Whether the writer came to its end, and found room for everything.

        It writes the header last, and not after anything else has failed. Then blocks, each of
        which has a length, are all that there is.
        """
        try:
            size = self.path.stat().st_size
            with self.path.open("rb") as file:
                if file.read(1) != bytes([_HEADER]):
                    return False
                at = 0
                while at < size:
                    file.seek(at + 1)
                    length = int.from_bytes(file.read(_LENGTH_BYTES), "big")
                    if length <= _LENGTH_BYTES:
                        return False
                    at += 1 + length
                return at == size
        except OSError:
            return False

    def keep(self) -> None:
        """Give the file its name.

        Raises
        ------
        OutputError
            If it is not whole, or cannot be renamed; a file of that name is then as it was.
        """
        if not self.whole:
            raise OutputError(
                f"{self._target}: waves must find room for all of them, but are not whole; choose "
                "a disk with more room, or run fewer layers"
            )
        try:
            os.replace(self.path, self._target)
        except OSError as error:
            raise _refused(self._target, error) from error


@contextmanager
def waves_at(target: Path) -> Iterator[Waves]:
    """Make a place for waves beside ``target``; what is still there at the end goes.

    Raises
    ------
    OutputError
        If nothing can be written there.
    """
    target = target.absolute()
    try:
        folder = tempfile.TemporaryDirectory(
            prefix=f".{target.name}.", dir=target.parent, ignore_cleanup_errors=True
        )
    except OSError as error:
        raise _refused(target, error) from error
    with folder as name:
        yield Waves(Path(name) / "waves.fst", target)


def _refused(target: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{target}: waves must lie where files can be written, but {error.strerror}; choose "
        "another file"
    )
