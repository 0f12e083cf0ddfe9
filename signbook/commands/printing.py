"""What commands print, and the document that they write beside it."""

import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

import typer

from vq.text.visible import visible

__all__ = [
    "is_standard",
    "keep_output",
    "print_compressed",
    "print_line",
    "print_remaining",
    "print_rows",
    "print_table",
    "print_totals",
    "save_json",
    "text",
    "warnings_in_short",
]

_WARNINGS = 3
#: Standard outputs that only a document may go to, as ``--json -`` asks.
_kept: list[TextIO] = []
#: Columns of text are not narrower than this, if their texts are not.
_FOLDED = 16


def text(value: object) -> str:
    """A value for people: thousands apart, three decimals."""
    if isinstance(value, float):
        return f"{value:,.3f}"
    return f"{value:,}" if type(value) is int else str(value)


def print_rows(title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Print names and values."""
    _print(title, None, rows, [False, False])


def print_table(title: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the columns of rows that have their names."""
    numeric = [any(isinstance(row[column], int | float) for row in rows) for column in columns]
    _print(title, columns, [[text(row[column]) for column in columns] for row in rows], numeric)


def _print(
    title: str, header: Sequence[str] | None, rows: Sequence[Sequence[str]], numeric: Sequence[bool]
) -> None:
    """Print a table, every text as it is: names may look like the console's markup.

    Off a terminal, each row is one line, as wide as it must be. In a terminal long texts fold,
    figures never do; where not even that fits, each row becomes a list.
    """
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    lines = [[visible(cell) for cell in row] for row in ([header] if header else []) + [*rows]]
    widths = [max((cell_len(line[i]) for line in lines), default=0) for i in range(len(numeric))]
    least = [w if n else min(w, _FOLDED) for w, n in zip(widths, numeric, strict=True)]
    frame = 1 + 3 * len(widths)
    if not console.is_terminal:
        console.width = frame + sum(widths)
    console.print(Text(visible(title), style="table.title"), soft_wrap=True)
    if frame + sum(least) > console.width:
        for row in lines[1:] if header else lines:
            console.print(Text(row[0], style="bold"), soft_wrap=True)
            for name, cell in zip((header or row)[1:], row[1:], strict=True):
                console.print(Text(f"  {name if header else ''} {cell}"), soft_wrap=True)
        return
    table = Table(show_header=header is not None)
    for name, width, number in zip(header or [""] * len(widths), least, numeric, strict=True):
        table.add_column(
            Text(name),
            justify="right" if number else "left",
            overflow="fold",
            no_wrap=number,
            min_width=width,
        )
    for row in lines[1:] if header else lines:
        table.add_row(*map(Text, row))
    console.print(table)


def print_line(line: str) -> None:
    """Print one line, which may hold names and paths."""
    typer.echo(visible(line))


def print_totals(document: Mapping[str, Any]) -> None:
    """Print what a document says about the whole."""
    totals = [(key, text(v)) for key, v in document.items() if not isinstance(v, list)]
    print_rows("total", totals)


def print_remaining(document: Mapping[str, Any], title: str) -> None:
    """Print what remains of a file's model at run time, if anything does."""
    if remains := document.get("runtime"):
        rows = [part | {"layers": len(part["layers"])} for part in remains]
        print_table(title, ("kind", "layers", "bytes", "macs_per_token"), rows)


def print_compressed(document: Mapping[str, Any]) -> None:
    """Print the layers that were clustered, and the file."""
    columns = ("name", "method", "weights", "bits_per_weight", "relative_error")
    print_table("compressed layers", columns, document["layers"])
    totals = ("file", "file_bytes", "bits_per_weight")
    print_rows("total", [(key, text(document[key])) for key in totals])


def save_json(path: Path | None, document: dict[str, Any]) -> None:
    """Write the document where ``--json`` says, if it was given."""
    from signbook.files import json_text, write_json

    if _kept and is_standard(path):
        typer.echo(json_text(document), file=_kept[-1], nl=False)
    elif path is not None:
        write_json(path, document)


def is_standard(path: Path | None) -> bool:
    """Whether a path stands for standard output."""
    return str(path) == "-"


@contextmanager
def keep_output() -> Iterator[None]:
    """Keep standard output for :func:`save_json`: all else that is printed goes to errors."""
    _kept.append(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _kept.pop()


@contextmanager
def warnings_in_short() -> Iterator[list[str]]:
    """Show warnings when the work is done, a line each, and of many the first ones.

    Yields a list that holds all of them, once the work is done.
    """
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        yield texts
    texts += dict.fromkeys(str(warning.message) for warning in caught)
    for line in texts[:_WARNINGS]:
        typer.echo(f"warning: {visible(line)}", err=True)
    if len(texts) > _WARNINGS:
        typer.echo(f"warning: {len(texts) - _WARNINGS} more like these", err=True)
