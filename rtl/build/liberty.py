"""Standard-cell libraries in the Liberty format: read, checked, and their flip-flops found."""

import gzip
import hashlib
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vq.container import ConfigError, bulleted

__all__ = ["Liberty", "read_liberty"]

_GZIP = b"\x1f\x8b"
#: Comments and strings, whose braces do not count; braces; and the groups that matter here.
_TOKENS = re.compile(r'/\*.*?\*/|"[^"]*"|[{}]|\b(library|cell|ff)\s*\(\s*"?([\w.$-]*)"?', re.DOTALL)


@dataclass(frozen=True)
class Liberty:
    """A library, of one or several files.

    Attributes
    ----------
    texts : dict of str to str
        Contents of the files by a name each that is plain.
    sources : dict of str to str
        SHA-256 of the contents by the files' own names.
    with_flip_flops : tuple of str
        Keys of ``texts`` that hold any.
    flip_flops : frozenset of str
        Names of these cells.
    """

    texts: dict[str, str]
    sources: dict[str, str]
    with_flip_flops: tuple[str, ...]
    flip_flops: frozenset[str]


def read_liberty(paths: Sequence[Path]) -> Liberty:
    """Read the files of a library, plain or gzipped.

    Raises
    ------
    ConfigError
        If a file cannot be read, is damaged or no library (all such are named), or none holds a
        flip-flop.
    """
    texts: dict[str, str] = {}
    sources: dict[str, str] = {}
    flip_flops: dict[str, set[str]] = {}
    problems = []
    for number, path in enumerate(paths):
        name = f"library{number}.lib"
        try:
            texts[name] = _text(path)
            flip_flops[name] = _flip_flops(texts[name])
        except (OSError, EOFError, ValueError, zlib.error) as error:
            problems.append(f"{path}: must be a library of cells, but {_reason(error)}")
            continue
        sources[path.name] = hashlib.sha256(texts[name].encode()).hexdigest()
    if problems:
        raise ConfigError(bulleted("liberty files", problems))
    found = frozenset[str]().union(*flip_flops.values())
    if not found:
        raise ConfigError(
            f"liberty files {', '.join(map(str, paths))}: must hold a flip-flop, but none of their "
            "cells is one; give --liberty the file with the sequential cells, too"
        )
    holding = tuple(name for name, cells in flip_flops.items() if cells)
    return Liberty(texts, sources, holding, found)


def _text(path: Path) -> str:
    data = path.read_bytes()
    return (gzip.decompress(data) if data.startswith(_GZIP) else data).decode()


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is no text"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)


def _flip_flops(text: str) -> set[str]:
    """Names of a file's cells with a group ``ff``.

    Raises
    ------
    ValueError
        If the text is not one library, whole and with cells.
    """
    depth, cell, found, cells, libraries = 0, "", set(), 0, 0
    for token in _TOKENS.finditer(text):
        match token[0][0]:
            case "{":
                depth += 1
            case "}":
                depth -= 1
                if depth < 0:
                    break
            case "l" if token[1] == "library" and depth == 0:
                libraries += 1
            case "c" if token[1] == "cell" and depth == 1:
                cell, cells = token[2], cells + 1
            case "f" if token[1] == "ff" and depth == 2:
                found.add(cell)
    if depth or libraries != 1:
        raise ValueError("it is not one library from its first brace to its last")
    if not cells:
        raise ValueError("it has no cells")
    return found
