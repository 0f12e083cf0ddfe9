"""Structures of the model's C header, read from it: it is the only place that lists them."""

import functools
import re
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["SOURCE", "structures"]

#: Folder of the model's C.
SOURCE = Path(__file__).parent / "source"

Layout = np.dtype[Any]
Member = tuple[str, Layout] | tuple[str, Layout, tuple[int, ...]]

_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_ENUM = re.compile(r"enum\s*\{([^}]*)\}")
_STRUCT = re.compile(r"typedef struct\s*\{([^}]*)\}\s*(\w+);")
_FUNCTION = re.compile(r"\w+\s*\(\*(\w+)\)\(.*\)", re.DOTALL)
_FIELD = re.compile(r"(\w+)((?:\[\w+\])?)$")
_NUMBERS: dict[str, Layout] = {"num": np.dtype(np.int32), "wide": np.dtype(np.int64)}
_POINTER = np.dtype(np.uint64)


@functools.cache
def structures() -> dict[str, Layout]:
    """Layouts of all structures of ``machine.h`` by name, as a C compiler lays them out."""
    text = _COMMENT.sub("", (SOURCE / "machine.h").read_text())
    sizes = _constants(text)
    known: dict[str, Layout] = dict(_NUMBERS)
    for match in _STRUCT.finditer(text):
        fields: list[Member] = []
        for line in filter(None, (part.strip() for part in match[1].split(";"))):
            fields += _fields(line, known, sizes)
        known[match[2]] = np.dtype(fields, align=True)
    return known


def _constants(text: str) -> dict[str, int]:
    """Values of all names in enumerations; a value may be another name's."""
    values: dict[str, int] = {}
    for match in _ENUM.finditer(text):
        value = 0
        for entry in filter(None, (part.strip() for part in match[1].split(","))):
            name, _, given = (part.strip() for part in entry.partition("="))
            if given:
                value = values[given] if given in values else int(given)
            values[name] = value
            value += 1
    return values


def _fields(line: str, known: dict[str, Layout], sizes: dict[str, int]) -> list[Member]:
    """Members that one declaration gives."""
    function = _FUNCTION.fullmatch(line)
    if function is not None:
        return [(function[1], _POINTER)]
    kind, names = line.removeprefix("const ").split(None, 1)
    fields: list[Member] = []
    for name in (part.strip() for part in names.split(",")):
        field = _FIELD.search(name)
        assert field is not None, line
        layout = _POINTER if name.startswith("*") else known[kind]
        size = field[2].strip("[]")
        count = sizes.get(size) or (int(size) if size else 0)
        fields.append((field[1], layout, (count,)) if count else (field[1], layout))
    return fields
