"""Tables in a terminal and off it."""

import re
import sys

import pytest

from signbook.commands.printing import print_rows, print_table

NAMES = ["fc[q]", "fc[/relu]", "[bold]x[/bold]", ":smile:", "model.layers.0.self_attn.q_proj" * 3]
FIGURES = {"weights": 1234567890, "bits": 1.125, "bytes": 987654321, "k": 4096, "d": 16}


STYLE = re.compile(r"\x1b\[[0-9;]*m")


def narrow(monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)


def table(name: str) -> None:
    print_table(f"of {name}", ("name", *FIGURES), [{"name": name, **FIGURES}])


@pytest.mark.parametrize("name", NAMES)
def test_off_a_terminal_a_row_is_one_line(capsys, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "40")
    table(name)
    title, *_, row, _ = capsys.readouterr().out.splitlines()
    assert title == f"of {name}"
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells == [name, "1,234,567,890", "1.125", "987,654,321", "4,096", "16"]
    print_rows(name, [(name, "[red]1[/]")])
    assert [x.strip() for x in capsys.readouterr().out.splitlines()[2].strip("│").split("│")] == [
        name, "[red]1[/]",
    ]  # fmt: skip


@pytest.mark.parametrize("columns", ["24", "40", "70", "90", "200"])
@pytest.mark.parametrize("name", NAMES)
def test_narrow_terminals_lose_nothing(capsys, monkeypatch, columns, name):
    narrow(monkeypatch, columns)
    table(name)
    out = STYLE.sub("", capsys.readouterr().out)
    assert all(figure in out for figure in ("1,234,567,890", "1.125", "987,654,321", "4,096"))
    body = [x for x in out.splitlines()[1:] if "weights" not in x or "│" not in x]
    first = "".join(x[1:].split("│")[0].strip() if x.startswith("│") else x for x in body)
    assert name in first


def test_narrow_terminals_print_lists(capsys, monkeypatch):
    narrow(monkeypatch, "40")
    table("fc")
    assert STYLE.sub("", capsys.readouterr().out).splitlines() == [
        "of fc", "fc", "  weights 1,234,567,890", "  bits 1.125", "  bytes 987,654,321",
        "  k 4,096", "  d 16",
    ]  # fmt: skip


def test_characters_that_do_not_show_are_escapes(capsys):
    table("a\nb\x1b[2J\udcff")
    assert r"│ a\nb\x1b[2J\udcff │" in capsys.readouterr().out
    print_rows("nothing", [])
