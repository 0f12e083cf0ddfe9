"""What to do with each layer: patterns that select layers, in Python or in YAML."""

import difflib
import fnmatch
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import pydantic
import yaml

from vq.errors import RecipeError, bulleted
from vq.formats.settings import SSVQ, VQ, Int2, Int3, Int4, Int8, Method

__all__ = ["SSVQ", "VQ", "Int2", "Int3", "Int4", "Int8", "Method", "Recipe"]

_METHODS = {kind.name: kind for kind in get_args(Method)}


class Recipe:
    """Patterns for layer names, each with a method, or None to keep the layer as it is.

    A layer takes the first of: the key that is its exact name; the first glob that matches
    (``*``, ``?``, ``[...]``); the first ``re:`` pattern that matches the whole name; the key
    ``*``. Without any of these it is kept.

    Parameters
    ----------
    rules : mapping of pattern to method or None

    Raises
    ------
    RecipeError
        With every problem of the recipe at once.

    Examples
    --------
    >>> recipe = Recipe({"*": SSVQ(d=8, k=16), "head": None, "blocks.*.fc?": VQ(d=4, k=64)})
    >>> chosen = recipe.resolve(["blocks.0.fc1", "blocks.0.qkv", "head"])
    >>> chosen["blocks.0.fc1"].k, chosen["blocks.0.qkv"].k, chosen["head"]
    (64, 16, None)
    """

    def __init__(self, rules: Mapping[str, Method | None]) -> None:
        problems = []
        if not rules:
            problems.append("rules must hold at least one pattern, not none")
        for key, method in rules.items():
            if method is not None and not isinstance(method, Method):
                kinds = ", ".join(kind.__name__ for kind in get_args(Method))
                problems.append(f"key {key!r}: method must be {kinds} or None, not {method!r}")
                continue
            if key.startswith("re:"):
                try:
                    re.compile(key[3:])
                except re.error as error:
                    problems.append(f"key {key!r}: must be a valid pattern, but {error}")
            problems += [f"key {key!r}: {p}" for p in (method.problems() if method else ())]
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

        Each pattern maps to ``null`` or to a method's name and its settings.

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
        text, where = str(source), "recipe"
        if "\n" not in text:
            where = f"recipe {text}"
            try:
                text = Path(source).read_text()
            except (OSError, UnicodeDecodeError) as error:
                raise RecipeError(f"{where}: must be a readable file, but {error}") from None
        try:
            document = yaml.load(text, _UniqueKeys)
        except yaml.YAMLError as error:
            raise RecipeError(f"{where}: must be valid YAML, but {error}") from None
        return cls.from_json(document)

    @classmethod
    def from_json(cls, document: object) -> "Recipe":
        """Build from plain data, as :meth:`to_json` gives it.

        Raises
        ------
        RecipeError
            With every problem at once.
        """
        if not isinstance(document, Mapping):
            raise RecipeError(f"recipe must map patterns to methods, not be {document!r}")
        problems: list[str] = []
        rules = {str(key): _read_method(str(key), v, problems) for key, v in document.items()}
        if problems:
            raise RecipeError(bulleted("recipe", problems))
        return cls(rules)

    def to_json(self) -> dict[str, Any]:
        """Rules as plain data, for YAML and for the container's metadata."""
        return {
            key: None if method is None else {"method": method.name} | asdict(method)
            for key, method in self.rules.items()
        }

    def resolve(self, names: Iterable[str]) -> dict[str, Method | None]:
        """Choose a method for every layer name.

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
        chosen: dict[str, Method | None] = {}
        for name in layers:
            winner = next((key for key in ranked if _matches(key, name)), None)
            chosen[name] = None if winner is None else self.rules[winner]
        return chosen


class _UniqueKeys(yaml.SafeLoader):  # type: ignore[misc]
    """YAML that refuses a key given twice; the plain loader would silently take the last."""


def _unique_mapping(loader: _UniqueKeys, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    found: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in found:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} is given twice", key_node.start_mark
            )
        found[key] = loader.construct_object(value_node, deep=True)
    return found


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def _read_method(key: str, value: object, problems: list[str]) -> Method | None:
    """Read one rule; what is wrong with it is appended to ``problems``."""
    if value is None:
        return None
    if not isinstance(value, Mapping) or "method" not in value:
        problems.append(f"key {key!r}: must be null or name its method, not {value!r}")
        return None
    name, settings = value["method"], {k: v for k, v in value.items() if k != "method"}
    kind = _METHODS.get(name) if isinstance(name, str) else None
    if kind is None:
        near = difflib.get_close_matches(str(name), _METHODS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        problems.append(
            f"key {key!r}: method must be one of {', '.join(_METHODS)}, not {name!r}{hint}"
        )
        return None
    known = list(kind.__dataclass_fields__)
    for field in settings.keys() - set(known):
        near = difflib.get_close_matches(str(field), known, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        problems.append(f"key {key!r}: {name} has no setting {field!r}{hint}")
    try:
        adapter = pydantic.TypeAdapter(kind, config=None)
        method: Method = adapter.validate_python(
            {k: v for k, v in settings.items() if k in known}, strict=False
        )
        return method
    except pydantic.ValidationError as error:
        for item in error.errors():
            field = ".".join(map(str, item["loc"]))
            problems.append(f"key {key!r}: {field}: {item['msg']}, not {item['input']!r}")
        return None


def _shared_problems(rules: Mapping[str, Method | None]) -> list[str]:
    """Rules that share a codebook must agree on what it is."""
    first: dict[str, tuple[str, Method]] = {}
    problems = []
    for key, method in rules.items():
        if not isinstance(method, SSVQ | VQ) or method.shared is None:
            continue
        owner, other = first.setdefault(method.shared, (key, method))
        if (type(other), other.d, other.k) != (type(method), method.d, method.k):  # type: ignore[union-attr]
            problems.append(
                f"key {key!r}: codebook {method.shared!r} must have the method, d and k that key "
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
