"""Runs on the RTL and by the cycle model, with a progress bar."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hwsim.measure.estimate import estimate
from hwsim.measure.simulate import Progress, simulate
from hwsim.measure.workload import estimate_workload
from hwsim.workloads import workload
from rtl import AcceleratorConfig
from vq.container import ConfigError
from vq.progress import bar

__all__ = ["foresee", "stream"]

_STEPS = 1000
_FILE = ".safetensors"


def stream(
    path: str | os.PathLike[str],
    *,
    config: AcceleratorConfig,
    memory: str,
    rows: int | None = None,
    methods: Sequence[str] = ("int8",),
    check: bool = False,
) -> dict[str, Any]:
    """Run :func:`hwsim.measure.simulate.simulate` and show how far each run is.

    The first run of a configuration also generates and builds its simulator, for a minute
    or two; later ones find it in the cache.
    """
    with _shown("simulating the RTL", "building, if this configuration is new", methods) as show:
        return simulate(
            path,
            config=config,
            memory=memory,
            rows=rows,
            methods=methods,
            progress=show,
            check=check,
        )


def foresee(
    target: str,
    *,
    recipe: str | None,
    config: AcceleratorConfig,
    memory: str,
    rows: int | None = None,
    methods: Sequence[str] = ("int8",),
) -> dict[str, Any]:
    """Predict a file as it is, or the shapes of a workload under a recipe.

    Parameters
    ----------
    target : str
        Path of a container, or any text of :func:`hwsim.workloads.workload`.
    recipe : str or None
        See :func:`hwsim.workloads.recipe_of`. With one, a container stands for its shapes.
    rows : int, optional
        Of a container; the text of a built-in workload says its own.

    Raises
    ------
    ConfigError
        If a workload has no recipe, or ``rows`` meets one that says its own.
    """
    if recipe is None and not target.endswith(_FILE):
        raise ConfigError(
            f"workload {target!r} must have a recipe, such as --recipe ssvq:d=8,k=16 or a YAML "
            "file, and none was given"
        )
    if recipe is not None and rows is not None:
        if not target.endswith(_FILE):
            raise ConfigError(
                f"--rows must be left out beside {target!r}: a workload says its own rows, such as "
                "llama-2-7b:m=4 or minilm-l6:tokens=16"
            )
        target = f"{target}:rows={rows}"
    with _shown("predicting", "laying out", methods) as show:
        if recipe is None:
            return estimate(
                target, config=config, memory=memory, rows=rows, methods=methods, progress=show
            )
        return estimate_workload(
            workload(target), recipe, config=config, memory=memory, methods=methods, progress=show
        )


@contextmanager
def _shown(title: str, first: str, methods: Sequence[str]) -> Iterator[Progress]:
    """A bar that all runs share."""
    with bar(title, _STEPS * (1 + len(methods))) as advance:
        seen: dict[str, int] = {}

        def show(run: str, done: int, total: int) -> None:
            reached = _STEPS * done // max(1, total)
            advance(reached - seen.get(run, 0), note=run)
            seen[run] = reached

        advance(0, note=first)
        yield show
