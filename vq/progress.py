"""Progress bars with an estimate of the time left; silent where nobody watches.

A bar appears when its work has taken a moment. Of bars within each other, the outer one is shown.
"""

import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from vq.text.visible import visible

__all__ = ["Advance", "bar", "track"]

T = TypeVar("T")

#: Seconds that work takes before it has a bar.
PATIENCE = 0.5
#: Columns that the figures take, and those of a terminal that has room for all else.
_FIGURES, _WIDE = 32, 88
#: Held by the bar that is shown.
_shown = threading.Lock()


class Advance(Protocol):
    """Move a bar forward by ``steps`` and show ``note`` beside it."""

    def __call__(self, steps: int = 1, note: str = "") -> None: ...


@contextmanager
def bar(description: str, total: int | None, *, enabled: bool = True) -> Iterator[Advance]:
    """Show a bar on standard error while the block runs, if that is a terminal.

    Without ``total`` it tells for how long work has gone on, and how many steps are done.
    """
    if not (enabled and sys.stderr.isatty() and _shown.acquire(blocking=False)):
        yield lambda steps=1, note="": None
        return
    try:
        with _bar(description, total) as advance:
            yield advance
    finally:
        _shown.release()


@contextmanager
def _bar(description: str, total: int | None) -> Iterator[Advance]:
    from rich.cells import set_cell_size
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(file=sys.stderr)  # even where the work within is kept from writing there
    figures: tuple[ProgressColumn, ...]
    if total is None:
        figures = (TimeElapsedColumn(), TextColumn("{task.fields[count]}"))
    else:
        figures = (
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
        )
    name = TextColumn("{task.description}", markup=False)
    if console.width < _WIDE:
        columns = (name, *figures)
        shown = set_cell_size(visible(description), max(1, console.width - _FIGURES)).rstrip()
    else:
        beside = TextColumn("{task.fields[note]}", markup=False)  # names of layers, with brackets
        columns = (name, BarColumn(bar_width=24), *figures, beside)
        shown = f"{visible(description):<28}"
    display = Progress(*columns, console=console)
    task = display.add_task(shown, total=total, note="", count="")

    def advance(steps: int = 1, note: str = "") -> None:
        done = display.tasks[0].completed + steps
        count = f"{done:,.0f} done" if done else ""
        display.update(task, advance=steps, note=visible(note), count=count)

    streams, begun = (sys.stdout, sys.stderr), time.monotonic()

    def appear() -> None:
        if (sys.stdout, sys.stderr) == streams:  # not while the work redirects them
            display.start()

    appearing = threading.Timer(PATIENCE, appear)
    appearing.daemon = True
    appearing.start()
    try:
        yield advance
    finally:
        if time.monotonic() - begun < PATIENCE:
            appearing.cancel()
        appearing.join()
        display.stop()


def track(items: Collection[T], description: str, *, enabled: bool = True) -> Iterator[T]:
    """Iterate over ``items`` with a bar."""
    with bar(description, len(items), enabled=enabled) as advance:
        for item in items:
            yield item
            advance()
