"""Settings of an instance by name: their types, their texts, and all that is wrong with them."""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from vq.container import ConfigError, bulleted

__all__ = ["Problem", "read_settings", "require", "type_problems", "unchecked", "unmet"]

#: Name of a setting, and what is wrong with it.
Problem = tuple[str, str]


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
