"""RTL simulation with a progress bar."""

import os
from collections.abc import Sequence
from typing import Any

from hwsim.measure import simulate
from rtl import AcceleratorConfig
from vq.progress import bar

__all__ = ["stream"]

_STEPS = 1000


def stream(
    path: str | os.PathLike[str],
    *,
    config: AcceleratorConfig,
    memory: str,
    rows: int | None = None,
    methods: Sequence[str] = ("int8",),
) -> dict[str, Any]:
    """Run :func:`hwsim.measure.simulate` and show how far each run is.

    The first run of a configuration also generates and builds its simulator, for a minute
    or two; later ones find it in the cache.
    """
    with bar("simulating the RTL", _STEPS * (1 + len(methods))) as advance:
        seen: dict[str, int] = {}

        def show(run: str, done: int, total: int) -> None:
            reached = _STEPS * done // max(1, total)
            advance(reached - seen.get(run, 0), note=run)
            seen[run] = reached

        advance(0, note="building, if this configuration is new")
        return simulate(
            path, config=config, memory=memory, rows=rows, methods=methods, progress=show
        )
