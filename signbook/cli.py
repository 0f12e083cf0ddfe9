"""The command line: its commands by name, each imported when it is asked for."""

import functools
import importlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import typer
from typer.core import TyperGroup

from vq.errors import SignbookError

__all__ = ["app", "main"]

_NAMES = (
    "demo", "plan", "compress", "finetune", "quantize", "inspect", "eval", "integer", "export",
    "rtl", "simulate", "estimate", "sweep", "report",
)  # fmt: skip


class _Commands(Mapping[str, Any]):
    """Commands by name: the function of each is ``run`` in ``signbook.commands.NAME``."""

    def __getitem__(self, name: str) -> Any:
        if name not in _NAMES:
            raise KeyError(name)
        return _command(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_NAMES)

    def __len__(self) -> int:
        return len(_NAMES)


@functools.cache
def _command(name: str) -> Any:
    alone = typer.Typer(add_completion=False, rich_markup_mode="rich")
    alone.command(name)(importlib.import_module(f"signbook.commands.{name}").run)
    return typer.main.get_command(alone)


class _Group(TyperGroup):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings | {"commands": _Commands()})


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


@app.callback()
def _signbook() -> None:
    """Sign-splitting vector quantisation, from checkpoint to clock cycle."""


def main() -> None:
    """Run a command. Exit 0: fine. 1: an error that Signbook names, in one line. 2: usage."""
    try:
        app()
    except SignbookError as error:
        from rich.console import Console

        Console(stderr=True, soft_wrap=True, highlight=False).print(
            f"[bold red]error:[/] {type(error).__name__}: ", end=""
        )
        print(error, file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("interrupted; every file that is there is complete", file=sys.stderr)
        raise SystemExit(1) from None
