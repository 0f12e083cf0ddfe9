"""``signbook demo``: the whole path on real data, without an argument."""

from pathlib import Path
from typing import Annotated

import typer

from signbook.commands.defaults import Defaults
from signbook.commands.options import Json
from signbook.commands.printing import is_standard, print_line, print_rows, print_table, save_json

__all__ = ["run"]


def run(
    out: Annotated[Path, typer.Option(help="Folder for the files.")] = Path("signbook-demo"),
    seed: Annotated[int, typer.Option(min=0, help="Of data split, model and batches.")] = Defaults(
        "signbook.demo.acts", "run_demo"
    ).seed,
    json: Json = None,
) -> None:
    """Train, compress, pack, stream through RTL and report: the whole path on real data.

    Needs no network, no GPU and no argument; takes about four minutes on two cores.
    """
    from signbook.demo import FILES, headline, language_rows, run_demo, samples
    from signbook.files import output_folder

    streamed = is_standard(json)
    with output_folder(out, [*(("--out", out / name) for name in FILES), ("--json", json)], []):
        result = run_demo(out, seed=seed, json_path=None if streamed else json)
    if streamed:
        save_json(json, result.document)
    print_rows("Signbook demo", headline(result.document))
    rows = language_rows(result.document)
    print_table("a language model of Python's documentation", list(rows[0]), rows)
    print_rows("what it writes", samples(result.document))
    print_line(f"report: {result.report}")
