"""Progress bars with an estimate of the time left; silent where nobody watches."""

import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

__all__ = ["Advance", "bar", "track"]

T = TypeVar("T")


class Advance(Protocol):
    """Move a bar forward by ``steps`` and show ``note`` beside it."""

    def __call__(self, steps: int = 1, note: str = "") -> None: ...


@contextmanager
def bar(description: str, total: int | None, *, enabled: bool = True) -> Iterator[Advance]:
    """Show a bar on standard error while the block runs, if that is a terminal."""
    if not (enabled and sys.stderr.isatty()):
        yield lambda steps=1, note="": None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:<28}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),  # names of layers, which have brackets
    )
    with Progress(*columns, console=Console(stderr=True)) as display:
        task = display.add_task(description, total=total, note="")

        def advance(steps: int = 1, note: str = "") -> None:
            display.update(task, advance=steps, note=note)

        yield advance


def track(items: Collection[T], description: str, *, enabled: bool = True) -> Iterator[T]:
    """Iterate over ``items`` with a bar."""
    with bar(description, len(items), enabled=enabled) as advance:
        for item in items:
            yield item
            advance()
