"""Progress bars in a terminal."""

import io
import re
import sys
import time
from contextlib import redirect_stdout

import pytest

from vq import progress
from vq.progress import bar, track


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def watch(monkeypatch):
    """Make a terminal where bars appear at once; what it shows is what the result gives."""
    monkeypatch.setattr(sys, "stderr", _Terminal())
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "PATIENCE", 0)
    return sys.stderr.getvalue


@pytest.mark.parametrize("name", ["fc[q]", "fc[/relu]", "[red]x[/red]"])
def test_names_are_no_markup(monkeypatch, name):
    shown = watch(monkeypatch)
    with bar(name, 1) as advance:
        advance(note=f"note {name}")
    assert shown().count(name) >= 2


def test_work_without_a_total_has_a_bar_too(monkeypatch):
    shown = watch(monkeypatch)
    with bar("building", None):
        pass
    assert "building" in shown() and "done" not in shown() and "eta" not in shown()
    with bar("evaluating", None) as advance:
        advance(1200)
        advance()
    assert "1,201 done" in shown()


def test_narrow_terminals_lose_no_figure(monkeypatch):
    shown = watch(monkeypatch)
    monkeypatch.setenv("COLUMNS", "40")
    with bar("measuring activations", 1200) as advance:
        advance(300, note="a long name of a layer" * 5)
    figures = re.compile(r"measurin +300/1200 0:00:00 eta .:..:..")
    assert figures.search(re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown()))


def test_quick_work_shows_nothing(monkeypatch):
    shown = watch(monkeypatch)
    monkeypatch.setattr(progress, "PATIENCE", 60)
    start = time.perf_counter()
    assert list(track([1, 2], "quick")) == [1, 2]
    assert shown() == "" and time.perf_counter() - start < 5


def test_of_bars_within_each_other_the_outer_one_is_shown(monkeypatch):
    shown = watch(monkeypatch)
    with bar("outer", 1), bar("inner", 1) as advance:
        advance()
    assert "outer" in shown() and "inner" not in shown()
    with pytest.raises(KeyError), bar("fails", 1):
        raise KeyError
    with bar("next", 1):
        pass
    assert "next" in shown()


def test_output_that_the_work_redirects_comes_back(monkeypatch):
    shown = watch(monkeypatch)
    monkeypatch.setattr(progress, "PATIENCE", 0.05)
    before = sys.stdout
    with bar("redirects", None):
        with redirect_stdout(io.StringIO()):
            time.sleep(0.1)
    assert sys.stdout is before and shown() == ""


def test_bars_can_be_turned_off(monkeypatch):
    shown = watch(monkeypatch)
    assert list(track([1, 2], "silent", enabled=False)) == [1, 2]
    assert shown() == ""
