"""Settings of an instance by name: their types and texts, what follows from them, what is wrong."""

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from rtl.rom import parse_rom
from vq.container import ConfigError, bulleted

__all__ = [
    "Problem",
    "followed",
    "read_settings",
    "require",
    "sides_of",
    "type_problems",
    "unchecked",
    "unmet",
]

#: Name of a setting, and what is wrong with it.
Problem = tuple[str, str]

_SIDES = (8, 16, 32, 64)
_BUSES = (64, 128, 256, 512)
_LENGTHS = (2, 4, 8, 16)
_POWERS = tuple(1 << power for power in range(32))


def require(subject: str, problems: Iterable[Problem]) -> None:
    """Require that there are no problems.

    Raises
    ------
    ConfigError
        With all of them in one message.
    """
    if found := [text for _, text in problems]:
        raise ConfigError(bulleted(subject, found))


def unchecked(kind: Any, settings: Mapping[str, Any]) -> Any:
    """A configuration that may be an impossible one, to be asked for its problems."""
    made = object.__new__(kind)
    vars(made).update(settings)
    return made


def unmet(config: Any, checks: Iterable[tuple[str, bool, str]]) -> list[Problem]:
    """Problems of checks that fail: each is a setting, whether it holds, and what it must be."""
    return [
        (name, f"{name} must be {requirement}, not {getattr(config, name)!r}")
        for name, holds, requirement in checks
        if not holds
    ]


def type_problems(config: Any) -> list[Problem]:
    """Settings that are not of the type of their field."""
    kinds: dict[Any, str] = {int: "an integer", str: "text"}
    return unmet(
        config,
        (
            (field.name, type(getattr(config, field.name)) is field.type, kinds[field.type])
            for field in dataclasses.fields(config)
        ),
    )


def sides_of(array: object) -> dict[str, str]:
    """Rows and columns that ``array`` is short for, as ``16x16``; none if it is no such text."""
    size = re.fullmatch(r"(\d{1,4})x(\d{1,4})", str(array))
    return {} if size is None else {"rows": size[1], "columns": size[2]}


def read_settings(
    kind: Any,
    settings: Mapping[str, Any],
    *,
    also: Iterable[str] = (),
    problems: Iterable[Problem] = (),
) -> dict[str, Any]:
    """Settings of a configuration, as a file or a command line gives them.

    Parameters
    ----------
    kind : dataclass
        The configuration.
    settings : mapping
        Integers may be given as their decimal text.
    also : iterable of str
        Further names, for whoever gives one that does not exist.
    problems : iterable of Problem
        Found before.

    Raises
    ------
    ConfigError
        If a name is unknown (with the nearest known one), or a value is not an integer.
    """
    wanted = {field.name: field.type for field in dataclasses.fields(kind)}
    known = [*wanted, *also]
    found = list(problems)
    values: dict[str, Any] = {}
    for name, value in settings.items():
        if name not in wanted:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            found.append((name, f"key must be one of {', '.join(known)}, not {name!r}{hint}"))
            continue
        try:
            whole = wanted[name] is int and isinstance(value, str)
            values[name] = int(value) if whole else value
        except ValueError:
            found.append((name, f"{name} must be an integer, not {value!r}"))
    require("accelerator configuration", found)
    return values


def followed(kind: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a configuration: those given, and of the others the default or what fits.

    ==================== ===========================================================================
    follows              from
    ==================== ===========================================================================
    ``bus_bits``         the array: at most ``rows * columns``
    ``columns``          ``bus_bits``: enough for it; ``rows``, if columns are given
    ``d_max``            ``columns``: at most as long
    ``d_min``            ``d_max`` and ``codebook_rom``: at most as long
    ``index_bits_max``   ``codebook_rom``: enough for its codewords
    ``burst_bytes``      ``fifo_bytes``: at most half
    ``fifo_bytes``       ``burst_bytes``: at least two
    ==================== ===========================================================================

    What is given is never changed.

    Parameters
    ----------
    kind : dataclass
        The configuration, with a method ``problems``.
    given : mapping of str to int or str
        Settings of the right names.

    Raises
    ------
    ConfigError
        If the settings contradict each other or a limit, with all problems. One of a setting that
        is possible by itself says which value would fit the others.
    """
    subject = "accelerator configuration"
    require(subject, type_problems(unchecked(kind, _defaults(kind) | dict(given))))
    chosen = _fitted(kind, given)
    if problems := _problems(kind, chosen):
        require(subject, _with_remedies(kind, given, problems))
    return chosen


def _defaults(kind: Any) -> dict[str, Any]:
    return {field.name: field.default for field in dataclasses.fields(kind)}


def _problems(kind: Any, settings: Mapping[str, Any]) -> list[Problem]:
    found: list[Problem] = unchecked(kind, settings).problems()
    return found


def _with_remedies(kind: Any, given: Mapping[str, Any], problems: list[Problem]) -> list[Problem]:
    """Problems that are conflicts with other settings, each with the value that has none."""
    names = {name for name, _ in problems}
    fitting = _fitted(kind, {name: value for name, value in given.items() if name not in names})
    if _problems(kind, fitting):
        return problems

    def told(name: str, text: str) -> str:
        number = name in given and type(given[name]) is int
        possible = number and not _problems(kind, _fitted(kind, {name: given[name]}))
        return f"{text}; --set {name}={fitting[name]} fits" if possible else text

    return [(name, told(name, text)) for name, text in problems]


def _fitted(kind: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """All settings, of the right types. Impossible ones change no others."""
    chosen = _defaults(kind) | dict(given)

    def follow(name: str, value: int) -> None:
        if name not in given:
            chosen[name] = value

    rows, columns, bus = (chosen.get(name) for name in ("rows", "columns", "bus_bits"))
    if rows in _SIDES and columns in _SIDES and bus in _BUSES:
        if "bus_bits" not in given:
            follow("bus_bits", min(bus, rows * columns))
        elif "columns" not in given:
            follow("columns", max(columns, bus // rows))
        else:
            follow("rows", max(rows, bus // columns))
    if chosen.get("columns") in _SIDES:
        follow("d_max", min(chosen["d_max"], chosen["columns"]))
    if chosen["d_max"] in _LENGTHS:
        follow("d_min", min(chosen["d_min"], chosen["d_max"]))
    book = parse_rom(chosen["codebook_rom"])
    if book is not None and 1 < len(book) <= 1024:
        follow("index_bits_max", max(chosen["index_bits_max"], (len(book) - 1).bit_length()))
        if book.shape[1] in _LENGTHS:
            follow("d_min", min(chosen["d_min"], book.shape[1]))
    if chosen["fifo_bytes"] in _POWERS[7:17]:
        follow("burst_bytes", min(chosen["burst_bytes"], chosen["fifo_bytes"] // 2))
    if chosen["burst_bytes"] in _POWERS[6:13]:
        follow("fifo_bytes", max(chosen["fifo_bytes"], 2 * chosen["burst_bytes"]))
    return chosen
