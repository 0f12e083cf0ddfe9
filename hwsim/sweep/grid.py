"""Which point comes next: all of them in the order of the space."""

from collections.abc import Mapping
from typing import Any, Protocol

from hwsim.sweep.space import Point, Space

__all__ = ["Grid", "Plan"]


class Plan(Protocol):
    """Chooses points, each once, and learns what came out."""

    def ask(self) -> Point | None:
        """The next point; None if there is none, or none before more results are known."""

    def tell(self, point: Point, row: Mapping[str, Any]) -> None:
        """What came out of a point that was asked for."""


class Grid:
    """Every point of a space."""

    def __init__(self, space: Space) -> None:
        self._points = space.points()

    def ask(self) -> Point | None:
        """See :class:`Plan`."""
        return next(self._points, None)

    def tell(self, point: Point, row: Mapping[str, Any]) -> None:
        """See :class:`Plan`. The order does not depend on it."""
