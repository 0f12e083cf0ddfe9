"""Progress bars in a terminal."""

import io
import sys

import pytest

from vq.progress import bar


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("name", ["fc[q]", "fc[/relu]", "[red]x[/red]"])
def test_names_are_no_markup(monkeypatch, name):
    monkeypatch.setattr(sys, "stderr", _Terminal())
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    with bar(name, 1) as advance:
        advance(note=f"note {name}")
    assert sys.stderr.getvalue().count(name) >= 2
