"""Sections, parts and tables of a report, and how numbers look in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Card", "Part", "Section", "Table", "number", "per_one", "ratio", "settings", "share"]

#: Letters of a setting's value that are shown.
_SHOWN = 48


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes
    ----------
    head : sequence of str
    rows : sequence of sequence of str
    texts : int
        Columns from the left that are no numbers.
    total : int, optional
        Row that is the sum of those before it.
    sorts : bool
        Each row stands for itself: readers may sort and filter them.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1
    total: int | None = None
    sorts: bool = False


@dataclass(frozen=True)
class Part:
    """A plot and its numbers.

    Attributes
    ----------
    title : str
    plot : str or None
        SVG; trusted.
    table : Table or None
    note : str
        What a reader has to know of it.
    wide : bool
        The table stands below the plot, not beside it.
    """

    title: str
    plot: str | None = None
    table: Table | None = None
    note: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Card:
    """A figure that is read first."""

    value: str
    text: str


@dataclass(frozen=True)
class Section:
    """One document.

    Attributes
    ----------
    title : str
    engines : sequence of str
        That gave its numbers: "rtl", "model".
    source : str
        Name of its file.
    cards : list of Card
    parts : list of Part
    """

    title: str
    engines: Sequence[str]
    source: str
    cards: list[Card] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)


def number(value: float | None) -> str:
    """A number with its thousands apart, or a dash."""
    if value is None:
        return "–"
    if isinstance(value, float) and abs(value) < 1000:
        return f"{value:.4g}"
    return f"{value:,.0f}"


def per_one(amount: float | None, of: float) -> float | None:
    """An amount for each one of something, or None if there is none."""
    return amount / of if amount is not None and of else None


def ratio(value: float | None) -> str:
    """How many times, or a dash."""
    return "–" if value is None else f"{value:.2f}x"


def share(part: float, whole: float) -> str:
    """Per cent of a whole, or a dash if there is none."""
    return f"{100 * part / whole:.1f}\u00a0%" if whole else "–"


def settings(values: Mapping[str, object]) -> str:
    """Settings in one line; what is not set is left out, what is long is cut."""
    shown = []
    for key, value in values.items():
        if value is not None and value != "":
            text = f"{value:g}" if isinstance(value, float) else str(value)
            shown.append(f"{key}={text if len(text) <= _SHOWN else text[: _SHOWN - 1] + '…'}")
    return "  ".join(shown)
