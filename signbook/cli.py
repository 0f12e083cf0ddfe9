"""The command line: its commands by name, each imported when it is asked for."""

import errno
import functools
import importlib
import io
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from signbook.commands import torchrun
from signbook.commands.stopping import stoppable
from vq.errors import OutputError, SignbookError
from vq.text.visible import visible
from vq.version import TOOL

__all__ = ["app", "main"]

_NAMES = (
    "demo", "plan", "compress", "finetune", "quantize", "codebook", "inspect", "eval", "generate",
    "integer", "export", "rtl", "simulate", "estimate", "sweep", "report",
)  # fmt: skip
#: Commands that have commands: each of these is a function in the file, by its name.
_PARTS = {"codebook": ("build",)}

_SETTINGS = {"help_option_names": ["-h", "--help"]}

#: What the system says of a stream that takes no more.
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EBADF, errno.EIO)


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
    alone = typer.Typer(
        name=name, add_completion=False, rich_markup_mode="rich", context_settings=_SETTINGS
    )
    module = importlib.import_module(f"signbook.commands.{name}")
    if name not in _PARTS:
        alone.command(name)(module.run)
    else:
        alone.callback(no_args_is_help=True)(module.run)
        for part in _PARTS[name]:
            alone.command(part, context_settings=_SETTINGS)(getattr(module, part))
    return typer.main.get_command(alone)


class _Group(TyperGroup):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings | {"commands": _Commands()})

    def invoke(self, context: Any) -> Any:
        with stoppable():
            return super().invoke(context)


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings=_SETTINGS,
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(TOOL)
        raise typer.Exit


@app.callback()
def _signbook(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_show_version, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Sign-splitting vector quantisation, from checkpoint to clock cycle."""
    torchrun.join(context.invoked_subcommand)


def _require_output() -> None:
    """Refuse a closed standard output: the next file that is opened would take its place.

    Closed standard errors are taken for ones that nobody reads.
    """
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")
    if sys.stdout is None:
        raise OutputError("standard output: must be open, if only to /dev/null, not closed")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names that its encoding does not have


def _fail(error: Exception) -> NoReturn:
    if not torchrun.may_fail_aloud():
        raise SystemExit(1) from None
    from rich.console import Console

    Console(stderr=True, soft_wrap=True, highlight=False).print(
        f"[bold red]error:[/] {type(error).__name__}: ", end=""
    )
    print(*map(visible, str(error).split("\n")), sep="\n", file=sys.stderr)
    raise SystemExit(1) from None


def main() -> None:
    """Run a command. Exit 0: fine. 1: an error that Signbook names, in one line. 2: usage.

    130: Ctrl-C. 143: SIGTERM.
    """
    with torchrun.ending():
        _main()


def _main() -> None:
    try:
        _require_output()
        app()
    except SignbookError as error:
        _fail(error)
    except OSError as error:
        if "temporary directory" in str(error):  # as tempfile says, to whoever imports torch
            _fail(OutputError("temporary files must have a folder with room; set TMPDIR to one"))
        if error.filename is not None or error.errno not in _UNWRITABLE:
            raise
        # What is still in the buffer is lost; Python would try again at its end, and say so.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _fail(OutputError(f"standard output: must take what is printed, but {error.strerror}"))
