"""What to do with each layer: patterns that select layers, in Python or in YAML."""

import difflib
import fnmatch
import os
import re
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pydantic

from vq.errors import ConfigError, RecipeError, bulleted
from vq.formats.format import Format
from vq.formats.registry import FORMATS, format_named
from vq.text.document import parse_yaml
from vq.text.fields import refusal
from vq.text.files import read_text

__all__ = ["Recipe"]


class Recipe:
    """Patterns for layer names, each with a format, or None to keep the layer as it is.

    A layer takes the first of: the key that is its exact name; the first glob that matches
    (``*``, ``?``, ``[...]``); the first ``re:`` pattern that matches the whole name; the key
    ``*``. Without any of these it is kept.

    Parameters
    ----------
    rules : mapping of pattern to format or None

    Raises
    ------
    RecipeError
        With every problem of the recipe at once.

    Examples
    --------
    >>> from vq import SSVQ, VQ
    >>> recipe = Recipe({"*": SSVQ(d=8, k=16), "head": None, "blocks.*.fc?": VQ(d=4, k=64)})
    >>> chosen = recipe.resolve(["blocks.0.fc1", "blocks.0.qkv", "head"])
    >>> chosen["blocks.0.fc1"].k, chosen["blocks.0.qkv"].k, chosen["head"]
    (64, 16, None)
    """

    def __init__(self, rules: Mapping[str, Format | None]) -> None:
        problems = []
        if not rules:
            problems.append("rules must hold at least one pattern, not none")
        for key, chosen in rules.items():
            if chosen is not None and not isinstance(chosen, Format):
                kinds = ", ".join(home.rpartition(":")[2] for home in FORMATS.values())
                problems.append(f"key {key!r}: method must be {kinds} or None, not {chosen!r}")
                continue
            if key.startswith("re:"):
                try:
                    re.compile(key[3:])
                except re.error as error:
                    problems.append(
                        f"key {key!r}: must be a regular expression, but it is none from place "
                        f"{4 + (error.pos or 0)} on"
                    )
            problems += [f"key {key!r}: {p}" for p in (chosen.problems() if chosen else ())]
        problems += _shared_problems(rules)
        if problems:
            raise RecipeError(bulleted("recipe", problems))
        self.rules = dict(rules)

    def __repr__(self) -> str:
        return f"Recipe({self.rules!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and list(self.rules.items()) == list(other.rules.items())

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def from_yaml(cls, source: str | os.PathLike[str]) -> "Recipe":
        """Read a recipe from YAML: a path, or the text itself if it has more than one line.

        Each pattern maps to ``null`` or to a format's name and its settings. Files that it names
        are relative to the recipe's own folder.

        Raises
        ------
        RecipeError
            With every problem of the file at once.

        Examples
        --------
        >>> Recipe.from_yaml('''
        ... blocks.*: {method: ssvq, d: 8, k: 16}
        ... head: null
        ... ''')
        ... # doctest: +ELLIPSIS
        Recipe({'blocks.*': SSVQ(d=8, k=16, ...), 'head': None})
        """
        text, where, folder = str(source), "recipe", Path()
        if "\n" not in text:
            where = f"recipe {text}"
            text, folder = read_text(source, where, error=RecipeError), Path(source).parent
        document = parse_yaml(text, where, error=RecipeError)
        return cls.from_json(document, folder)

    @classmethod
    def from_json(cls, document: object, folder: str | os.PathLike[str] = ".") -> "Recipe":
        """Build from plain data, as :meth:`to_json` gives it.

        Files that it names are relative to ``folder``.

        Raises
        ------
        RecipeError
            With every problem at once.
        """
        if not isinstance(document, Mapping):
            given = reprlib.repr(document)
            raise RecipeError(f"recipe must map patterns to methods, not be {given}")
        problems: list[str] = []
        rules = {
            str(key): _read_rule(str(key), value, Path(folder), problems)
            for key, value in document.items()
        }
        if problems:
            raise RecipeError(bulleted("recipe", problems))
        return cls(rules)

    def to_json(self) -> dict[str, Any]:
        """Rules as plain data, for YAML and for the container's metadata."""
        return {
            key: None if chosen is None else chosen.to_json() for key, chosen in self.rules.items()
        }

    @property
    def files(self) -> list[Path]:
        """Files that the formats were read from: those of fixed codebooks."""
        return [file for chosen in self.rules.values() if chosen for file in chosen.files]

    def resolve(self, names: Iterable[str]) -> dict[str, Format | None]:
        """Choose a format for every layer name.

        Raises
        ------
        RecipeError
            If a key matches no layer; the message suggests the nearest name.
        """
        layers = list(names)
        problems = []
        for key in self.rules:
            if not any(_matches(key, name) for name in layers):
                near = difflib.get_close_matches(key.removeprefix("re:"), layers, n=1, cutoff=0.4)
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                problems.append(f"key {key!r} must match at least one layer, not 0{hint}")
        if problems:
            raise RecipeError(bulleted("recipe", problems))
        ranked = sorted(self.rules, key=_rank)  # stable: the order of the recipe breaks ties
        chosen: dict[str, Format | None] = {}
        for name in layers:
            winner = next((key for key in ranked if _matches(key, name)), None)
            chosen[name] = None if winner is None else self.rules[winner]
        return chosen


def _read_rule(key: str, value: object, folder: Path, problems: list[str]) -> Format | None:
    """Read one rule; what is wrong with it is appended to ``problems``."""
    if value is None:
        return None
    if not isinstance(value, Mapping) or "method" not in value:
        problems.append(f"key {key!r}: must be null or name its method, not {value!r}")
        return None
    name, settings = value["method"], {k: v for k, v in value.items() if k != "method"}
    if not isinstance(name, str) or name not in FORMATS:
        near = difflib.get_close_matches(str(name), FORMATS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        problems.append(
            f"key {key!r}: method must be one of {', '.join(FORMATS)}, not {name!r}{hint}"
        )
        return None
    kind = format_named(name)
    known = [field.name for field in fields(kind)]
    for field in settings.keys() - set(known):
        near = difflib.get_close_matches(str(field), known, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        problems.append(f"key {key!r}: {name} has no setting {field!r}{hint}")
    try:
        given = kind.read({k: v for k, v in settings.items() if k in known}, folder)
        return pydantic.TypeAdapter(kind).validate_python(given, strict=False)
    except pydantic.ValidationError as error:
        for item in error.errors():
            at = ".".join(map(str, item["loc"]))
            problems.append(f"key {key!r}: {at} {refusal(item)}")
    except ConfigError as error:
        problems.append(f"key {key!r}: {error}")
    return None


def _shared_problems(rules: Mapping[str, Format | None]) -> list[str]:
    """Rules that share a codebook must agree on what it is."""
    first: dict[str, tuple[str, Format]] = {}
    problems = []
    for key, chosen in rules.items():
        if not isinstance(chosen, Format) or chosen.shared is None:
            continue
        owner, other = first.setdefault(chosen.shared, (key, chosen))
        if not chosen.agrees_with(other):
            problems.append(
                f"key {key!r}: codebook {chosen.shared!r} must have the method, d and k that key "
                f"{owner!r} gives it"
            )
    return problems


def _rank(key: str) -> int:
    if key == "*":
        return 3
    if key.startswith("re:"):
        return 2
    return 1 if any(c in key for c in "*?[") else 0


def _matches(key: str, name: str) -> bool:
    if key.startswith("re:"):
        return re.fullmatch(key[3:], name) is not None
    return key == name or fnmatch.fnmatchcase(name, key)
