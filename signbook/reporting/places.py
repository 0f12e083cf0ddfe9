"""Layers as a report draws them: one by one, or those that repeat as one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hwsim.measure.document import Layer, Run, by_cause
from signbook.plots.roofline import ranges

__all__ = ["PLACES", "Place", "Work", "places"]

#: Places that a plot has room for.
PLACES = 24


@dataclass(frozen=True)
class Work:
    """What one or more layers did in one run, summed.

    Attributes
    ----------
    methods : tuple of str
        All that occur.
    m : int or None
        Rows of activations, if all have as many.
    macs, bytes_read : int
    cycles : dict of str to int
        By cause, "busy" first.
    """

    methods: tuple[str, ...]
    m: int | None
    macs: int
    bytes_read: int
    cycles: dict[str, int]

    @property
    def total(self) -> int:
        """All cycles."""
        return sum(self.cycles.values())


@dataclass(frozen=True)
class Place:
    """One or more layers, drawn as one.

    Attributes
    ----------
    name : str
        Repeated layers have the range of their numbers in it, as ``blocks.{0..11}.fc1``.
    count : int
        Layers that it stands for.
    runs : dict of str to Work
    """

    name: str
    count: int
    runs: dict[str, Work]


def places(runs: Mapping[str, Run], limit: int = PLACES) -> list[Place]:
    """Layers of all runs, in order, so that there are at most ``limit`` places.

    If there are more layers, those that repeat become one: equal names but for numbers between
    dots, and in every run equal methods, weights, multiplications and rows. If there still are
    more, the places with the fewest cycles in all runs become one, the last.

    Parameters
    ----------
    runs : mapping of str to Run
        With the same layers in the same order.
    limit : int
        At least 2.
    """
    rows = list(zip(*(run.layers for run in runs.values()), strict=True))
    numbered = list(enumerate(runs))
    groups = [[row] for row in rows]
    if len(rows) > limit:
        found: dict[object, list[tuple[Layer, ...]]] = {}
        for row in rows:
            found.setdefault(_kind(row), []).append(row)
        groups = list(found.values())
    named = [(_name([row[0].name for row in group]), group) for group in groups]
    if len(named) > limit:
        order = sorted(range(len(named)), key=lambda i: -_cycles(named[i][1]))
        kept, others = sorted(order[: limit - 1]), order[limit - 1 :]
        rest = [row for i in sorted(others) for row in named[i][1]]
        named = [named[i] for i in kept] + [(f"{len(rest)} other layers", rest)]
    return [
        Place(name, len(group), {run: _sum([row[i] for row in group]) for i, run in numbered})
        for name, group in named
    ]


def _kind(row: Sequence[Layer]) -> object:
    """What is equal for layers that repeat each other."""
    pattern = tuple("" if part.isdecimal() else part for part in row[0].name.split("."))
    return pattern, tuple((layer.method, layer.weights, layer.macs, layer.m) for layer in row)


def _name(names: Sequence[str]) -> str:
    """One name for layers whose names differ in numbers between dots.

    >>> _name(["blocks.0.fc1", "blocks.1.fc1", "blocks.2.fc1"])
    'blocks.{0..2}.fc1'
    """
    columns = zip(*(name.split(".") for name in names), strict=True)
    parts = [sorted(set(column), key=lambda part: (len(part), part)) for column in columns]
    return ".".join(part[0] if len(part) == 1 else f"{{{_numbers(part)}}}" for part in parts)


def _numbers(parts: Sequence[str]) -> str:
    return ranges([int(part) for part in parts]).replace("–", "..")


def _cycles(group: Sequence[Sequence[Layer]]) -> int:
    return sum(layer.cycles for row in group for layer in row)


def _sum(layers: Sequence[Layer]) -> Work:
    rows = {layer.m for layer in layers}
    causes = by_cause(layers[0])
    return Work(
        tuple(dict.fromkeys(layer.method for layer in layers)),
        rows.pop() if len(rows) == 1 else None,
        sum(layer.macs for layer in layers),
        sum(layer.bytes_read for layer in layers),
        {cause: sum(by_cause(layer)[cause] for layer in layers) for cause in causes},
    )
