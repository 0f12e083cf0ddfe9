"""``signbook report``: one page about documents of other commands."""

from pathlib import Path
from typing import Annotated

import typer

from signbook.commands.printing import print_line

__all__ = ["run"]


def run(
    documents: Annotated[
        list[Path],
        typer.Argument(
            metavar="DOCUMENT.json...",
            help="What simulate, estimate, sweep and eval wrote by --json.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page to write.")],
) -> None:
    """Write one HTML page about any number of documents: plots, tables, and no other file."""
    from signbook.files import check_outputs
    from signbook.report import write_report
    from vq.progress import bar

    check_outputs([("--out", out)], documents)

    with bar("drawing the report", None):
        write_report(documents, out)
    print_line(f"report: {out}")
