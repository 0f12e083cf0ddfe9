"""What commands print, and the document that they write beside it."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

__all__ = [
    "print_compressed",
    "print_rows",
    "print_table",
    "print_totals",
    "resumable",
    "save_json",
    "text",
    "warnings_in_short",
]

_WARNINGS = 3


def text(value: object) -> str:
    """A value for people: thousands apart, three decimals."""
    if isinstance(value, float):
        return f"{value:,.3f}"
    return f"{value:,}" if type(value) is int else str(value)


def print_rows(title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Print names and values."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_header=False)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the columns of rows that have their names."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in columns:
        numeric = bool(rows) and isinstance(rows[0][column], int | float)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(text(row[column]) for column in columns))
    Console().print(table)


def print_totals(document: Mapping[str, Any]) -> None:
    """Print what a document says about the whole."""
    totals = [(key, text(v)) for key, v in document.items() if not isinstance(v, list)]
    print_rows("total", totals)


def print_compressed(document: Mapping[str, Any]) -> None:
    """Print the layers that were clustered, and the file."""
    columns = ("name", "method", "weights", "bits_per_weight", "relative_error")
    print_table("compressed layers", columns, document["layers"])
    totals = ("file", "file_bytes", "bits_per_weight")
    print_rows("total", [(key, text(document[key])) for key in totals])


def save_json(path: Path | None, document: dict[str, Any]) -> None:
    """Write the document where ``--json`` says, if it was given."""
    if path is not None:
        from signbook.files import write_json

        write_json(path, document)


@contextmanager
def resumable(out: Path, part: str) -> Iterator[None]:
    """Say after Ctrl-C that every finished ``part`` is in ``out``, and exit with status 130."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(
            f"interrupted; every finished {part} is in {out}: the same command with --resume goes "
            "on from there",
            err=True,
        )
        raise typer.Exit(130) from None


@contextmanager
def warnings_in_short() -> Iterator[None]:
    """Show warnings when the work is done, a line each, and of many the first ones."""
    with warnings.catch_warnings(record=True) as caught:
        yield
    texts = list(dict.fromkeys(str(warning.message) for warning in caught))
    for line in texts[:_WARNINGS]:
        typer.echo(f"warning: {line}", err=True)
    if len(texts) > _WARNINGS:
        typer.echo(f"warning: {len(texts) - _WARNINGS} more like these", err=True)
