"""What ``simulate`` and ``estimate`` share: the accelerator, the memory, progress, tables."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from signbook.commands.accelerator import read_settings
from signbook.commands.printing import print_remaining, print_rows, print_table, save_json
from signbook.commands.tables import layer_rows, rest_rows, run_rows, summary_rows

if TYPE_CHECKING:
    from hwsim.measure.file import Progress
    from rtl import AcceleratorConfig

__all__ = ["Setup", "print_measured", "setup_of", "shown"]

_STEPS = 1000


@dataclass(frozen=True)
class Setup:
    """The accelerator, the text of its memory, and the baselines beside the file.

    The fields are arguments of :func:`hwsim.simulate`, ``estimate`` and ``estimate_workload``.
    """

    config: "AcceleratorConfig"
    memory: str
    methods: tuple[str, ...]


def setup_of(
    accelerator: Path | None,
    settings: Sequence[str] | None,
    rom: Path | None,
    memory: str,
    methods: str,
) -> Setup:
    """Read what the options say: see :func:`signbook.commands.accelerator.read_settings`.

    Raises
    ------
    ConfigError
    """
    from hwsim.memory.clock import memory_at
    from rtl import AcceleratorConfig

    values, clock = read_settings(accelerator, settings, rom)
    names = () if methods == "none" else tuple(each.strip() for each in methods.split(","))
    return Setup(
        AcceleratorConfig.from_mapping(values),
        memory if clock is None else memory_at(memory, clock),
        tuple(dict.fromkeys(names)),
    )


@contextmanager
def shown(title: str, first: str, methods: Sequence[str]) -> Iterator["Progress"]:
    """A bar that all runs share: that of the file, and one for each baseline."""
    from vq.progress import bar

    with bar(title, _STEPS * (1 + len(methods))) as advance:
        seen: dict[str, int] = {}

        def show(run: str, done: int, total: int) -> None:
            reached = _STEPS * done // max(1, total)
            advance(reached - seen.get(run, 0), note=run)
            seen[run] = reached

        advance(0, note=first)
        yield show


def print_measured(title: str, document: dict[str, Any], json: Path | None) -> None:
    """Write a measurement where ``--json`` says, and print it."""
    save_json(json, document)
    heading, layers = layer_rows(document)
    print_table(f"{title}: {heading}", list(layers[0]), layers)
    runs = run_rows(document)
    print_table(f"{title}: runs", list(runs[0]), runs)
    if rest := rest_rows(document):
        print_table("not run by the accelerator", list(rest[0]), rest)
    print_remaining(document, "remains at run time, not run by the accelerator")
    print_rows("ratios", summary_rows(document))
    if order := document["runs"]["compressed"].get("reordered"):
        stored = order["from"] or "several numbers"
        typer.echo(
            f"streams re-ordered in a temporary copy: blocks of {order['to']} outputs, the rows of "
            f"the array, where the file has {stored}"
        )
