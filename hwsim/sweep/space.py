"""Which values each axis of a sweep has, and the points that they span."""

import hashlib
import itertools
import os
import re
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from hwsim.defaults import DEFAULT_MEMORY
from hwsim.memory import absolute_memory, parse_memory
from hwsim.sweep.checks import count_problem, name_problem
from hwsim.sweep.evaluate import Work
from hwsim.workloads import recipe_of, workload
from rtl import AcceleratorConfig
from vq.container import ConfigError, SignbookError, bulleted, open_container
from vq.text.document import parse_yaml
from vq.text.files import read_text

__all__ = ["ENGINES", "Point", "Space", "read_space"]

ENGINES = ("model", "rtl")
_INI = re.compile(r"(?:dram:ini=)?(.*\.ini)(?:[:,]|$)", re.S)
_AXES = ("targets", "engine", "recipes", "memories", "rows", "accelerator")
#: Instances with room on every side: a value that fits neither of them fits no instance.
_ROOMY: tuple[Mapping[str, int], ...] = (
    dict(
        bus_bits=512, rows=64, columns=64, d_min=2, scale_lanes=1, index_bits_max=10,
        burst_bytes=64, fifo_bytes=1 << 16,
    ),
    dict(bus_bits=64, rows=8, columns=8, d_min=2, d_max=2, scale_lanes=1, burst_bytes=64),
)  # fmt: skip


@dataclass(frozen=True)
class Point:
    """One combination of values.

    Attributes
    ----------
    target, memory : str
    recipe : str or None
        Text of the recipe of a workload; a file has its own.
    rows : int or None
        Rows M of activations of a file's layers; None as :func:`hwsim.estimate` has it.
    accelerator : tuple of (str, int or str)
        Settings; others keep their defaults.
    """

    target: str
    recipe: str | None
    memory: str
    rows: int | None
    accelerator: tuple[tuple[str, int | str], ...]

    def to_json(self) -> dict[str, Any]:
        """As plain data, as rows name their points."""
        return {
            "target": self.target,
            "recipe": self.recipe,
            "memory": self.memory,
            "rows": self.rows,
            "accelerator": dict(self.accelerator),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Build from what :meth:`to_json` gives."""
        return cls(**{**document, "accelerator": tuple(document["accelerator"].items())})


@dataclass(frozen=True, kw_only=True)
class Space:
    """Values of each axis, in the order in which points take them.

    Attributes
    ----------
    targets : tuple of str
        Paths of containers, and texts of workloads (:func:`hwsim.workloads.workload`).
    engine : str
        "model" or "rtl"; workloads have no weights, and so no RTL runs.
    recipes : mapping of str to mapping
        Rules of each recipe for the workloads, as plain data, by its text.
    memories : tuple of str
        See :func:`hwsim.memory.parse_memory`.
    rows : tuple of int or None
        For the files, see :func:`hwsim.estimate`.
    accelerator : mapping of str to tuple
        Values of settings, by name; see :meth:`rtl.AcceleratorConfig.from_mapping`.
    """

    targets: tuple[str, ...]
    engine: str
    recipes: Mapping[str, Mapping[str, Any]]
    memories: tuple[str, ...]
    rows: tuple[int | None, ...]
    accelerator: Mapping[str, tuple[int | str, ...]]

    @classmethod
    def from_mapping(cls, document: Mapping[str, Any]) -> Self:
        """Check what a file or a command line says, and take it.

        One value may stand for a list of one. Whole numbers may be given as their text. What is
        left out: engine "model", the default memory, rows as :func:`hwsim.estimate` has them.

        Raises
        ------
        ConfigError
            If a key is unknown, or a value impossible by itself, with everything that is wrong.
        """
        problems: list[str] = []
        for key in document:
            problems += name_problem("key", key, _AXES)
        accelerator = document.get("accelerator") or {}
        if not isinstance(accelerator, Mapping):
            problems.append(f"accelerator must map settings to values, not be {accelerator!r}")
            accelerator = {}
        settings = {str(key): _numbers(_listed(value)) for key, value in accelerator.items()}
        targets = _texts(document.get("targets"))
        recipes = _texts(document.get("recipes"))
        engines = _texts(document.get("engine")) or ["model"]
        memories = _texts(document.get("memories")) or [DEFAULT_MEMORY]
        rows = _numbers(_listed(document.get("rows")))
        rules: dict[str, Any] = {}

        def read_recipe(text: str) -> None:
            try:
                rules[text] = recipe_of(text).to_json()
            except ConfigError as error:
                raise ConfigError(f"recipe {text!r}: {'; '.join(_problems_of(error))}") from None

        problems += _told(_check_target, targets)
        for engine in engines:
            problems += name_problem("engine", engine, ENGINES)
        if len(engines) > 1:
            problems.append(f"engine must be given once, not {len(engines)} times")
        problems += _told(read_recipe, recipes) + _told(parse_memory, memories)
        problems += [p for number in rows for p in count_problem("rows", number, 1)]
        problems += _kind_problems(targets, engines[0], recipes, rows)
        problems += _setting_problems(settings)
        if problems:
            raise ConfigError(bulleted("sweep", dict.fromkeys(problems)))
        return cls(
            targets=tuple(targets),
            engine=engines[0],
            recipes=rules,
            memories=tuple(memories),
            rows=tuple(dict.fromkeys(rows)) or (None,),
            accelerator={key: tuple(dict.fromkeys(v)) for key, v in settings.items()},
        )

    def points(self) -> Iterator[Point]:
        """All points; the last setting of the accelerator changes first."""
        settings = [[(key, value) for value in v] for key, v in self.accelerator.items()]
        for target in self.targets:
            file = _is_file(target)
            recipes = [None] if file else list(self.recipes)
            rows = self.rows if file else (None,)
            for recipe, memory, number in itertools.product(recipes, self.memories, rows):
                for chosen in itertools.product(*settings):
                    yield Point(target, recipe, memory, number, chosen)

    def __len__(self) -> int:
        """How many points there are."""
        files = sum(map(_is_file, self.targets))
        designs = len(self.memories)
        for values in self.accelerator.values():
            designs *= len(values)
        others = len(self.targets) - files
        return designs * (files * len(self.rows) + others * len(self.recipes))

    def work(self, point: Point) -> Work:
        """What evaluates a point, in a process whose folder may be another."""
        target = point.target
        return Work(
            self.engine,
            os.path.abspath(target) if target.endswith((".safetensors", ".csv")) else target,
            None if point.recipe is None else self.recipes[point.recipe],
            absolute_memory(point.memory),
            point.rows,
            dict(point.accelerator),
        )

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "targets": list(self.targets),
            "engine": self.engine,
            "recipes": {text: dict(rules) for text, rules in self.recipes.items()},
            "memories": list(self.memories),
            "rows": list(self.rows),
            "accelerator": {key: list(values) for key, values in self.accelerator.items()},
        }

    def files(self) -> dict[str, str]:
        """SHA-256 of every file that the points depend on, by its path as it was given."""
        return {name: _sha256(name) for name in self._paths()}

    def _paths(self) -> Iterator[str]:
        for target in self.targets:
            path, dot, _ = target.partition(".safetensors:")
            path += dot.removesuffix(":")
            if path.endswith((".safetensors", ".csv")):
                yield path
        for memory in self.memories:
            if file := _INI.match(memory):
                yield file[1]


def read_space(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a YAML file says of a space, for :meth:`Space.from_mapping`.

    Raises
    ------
    ConfigError
        If it cannot be read, or is no mapping.
    """
    subject = f"space {path}"
    document = parse_yaml(read_text(path, subject), subject)
    if not isinstance(document, dict):
        raise ConfigError(f"{subject}: must map axes to values, not be {reprlib.repr(document)}")
    return document


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _texts(value: Any) -> list[str]:
    """Values of an axis as text, each once."""
    return list(dict.fromkeys(map(str, _listed(value))))


def _numbers(values: Sequence[Any]) -> list[Any]:
    """Texts of whole numbers as numbers, so that both name the same point."""
    return [int(v) if isinstance(v, str) and v.isdecimal() else v for v in values]


def _is_file(target: str) -> bool:
    return target.endswith(".safetensors")


def _told(check: Callable[[str], object], values: Sequence[str]) -> list[str]:
    """What a check says of values: one problem for each that it refuses."""
    problems = []
    for value in values:
        try:
            check(value)
        except SignbookError as error:
            problems.append(str(error))
    return problems


def _check_target(target: str) -> None:
    if not _is_file(target):
        workload(target)
        return
    with open_container(target):
        pass


def _kind_problems(
    targets: Sequence[str], engine: str, recipes: Sequence[str], rows: Sequence[int]
) -> list[str]:
    """What files and workloads need, and what they have no use for."""
    if not targets:
        return ["targets must be at least one file or workload, not none"]
    problems = []
    files = [_is_file(target) for target in targets]
    if not all(files):
        if not recipes:
            problems.append("recipes must be given for a workload, such as ssvq:d=8,k=16")
        if engine == "rtl":
            problems.append("engine must be model for a workload, which has no weights, not rtl")
    elif recipes:
        problems.append("recipes must stand beside a workload: a file has its own")
    if not any(files) and rows:
        problems.append("rows must stand beside a file: a workload's text says its rows")
    return problems


def _setting_problems(settings: Mapping[str, Sequence[Any]]) -> list[str]:
    """Names that no accelerator knows, and values that none can have."""
    problems = []
    for key, values in settings.items():
        if not values:
            problems.append(f"{key} must have at least one value, not none")
        for value in values:
            tries = [_instance_problems(roomy, key, value) for roomy in _ROOMY]
            fewest: list[str] = min(tries, key=len)
            problems += fewest
    if "array" in settings and settings.keys() & {"rows", "columns"}:
        problems.append("array must stand without rows and columns, which it is short for")
    return problems


def _instance_problems(roomy: Mapping[str, Any], key: str, value: Any) -> list[str]:
    short_for = ("rows", "columns") if key == "array" else ()
    others = {name: size for name, size in roomy.items() if name not in short_for}
    try:
        AcceleratorConfig.from_mapping({**others, key: value})
    except ConfigError as error:
        return _problems_of(error)
    return []


def _problems_of(error: ConfigError) -> list[str]:
    """Of an error with a heading, the problem in each line behind it; else its text."""
    first, *lines = str(error).splitlines()
    return [line.removeprefix("- ") for line in lines] or [first]


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
