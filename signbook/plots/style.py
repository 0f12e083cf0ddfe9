"""Colours, and what makes inline SVG of a figure.

Every colour has a light and a dark value. A figure is drawn in the light ones, and its SVG names
them as variables of the page, so that a plot follows the reader's screen.
"""

import functools
import hashlib
import io
import math
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

__all__ = [
    "BYTES",
    "INK",
    "LINE",
    "MUTED",
    "PALETTE",
    "PAPER",
    "SERIES",
    "STALLS",
    "WIDE",
    "as_svg",
    "compact",
    "label_box",
    "legend_above",
    "log_axis",
    "make_axes",
    "run_look",
    "short",
    "value_axis",
]

P = ParamSpec("P")

#: Colours of pages and plots: name, on light paper, on dark paper. The seven for causes are Okabe's
#: and Ito's, which differ in lightness too, for readers who see fewer hues.
PALETTE = {
    "page": ("#f7f9fa", "#10161c"),
    "paper": ("#ffffff", "#182028"),
    "ink": ("#1f2933", "#e6eaee"),
    "muted": ("#616e7c", "#9fb0bf"),
    "line": ("#e4e7eb", "#33404c"),
    "accent": ("#0b7285", "#4cc4d6"),
    "grey": ("#9aa5b1", "#8391a0"),
    "blue": ("#0072b2", "#3d9bd6"),
    "sky": ("#56b4e9", "#8fd0f5"),
    "yellow": ("#f0e442", "#f0e443"),
    "orange": ("#e69f00", "#e6a010"),
    "red": ("#d55e00", "#e0702a"),
    "pink": ("#cc79a7", "#d68fb6"),
    "green": ("#009e73", "#2bb68d"),
}
_LIGHT = {name: light for name, (light, _) in PALETTE.items()}
_NAMES = {light: name for name, light in _LIGHT.items()}
INK, MUTED, LINE, PAPER = (_LIGHT[name] for name in ("ink", "muted", "line", "paper"))

#: Where cycles go, and what bytes are, each with its colour.
STALLS = {
    "busy": _LIGHT["blue"],
    "memory": _LIGHT["sky"],
    "codebook": _LIGHT["yellow"],
    "decoder": _LIGHT["orange"],
    "vector": _LIGHT["green"],
    "compute": _LIGHT["red"],
    "writeback": _LIGHT["pink"],
}
BYTES = {
    "weights": _LIGHT["blue"],
    "codebooks": _LIGHT["yellow"],
    "scales": _LIGHT["orange"],
    "activations": _LIGHT["sky"],
    "descriptors": _LIGHT["pink"],
    "padding": _LIGHT["grey"],
}
#: Colours for names that nobody knows beforehand.
SERIES = [_LIGHT[n] for n in ("blue", "orange", "green", "pink", "sky", "red", "yellow", "grey")]
_RUNS = {
    "compressed": (_LIGHT["accent"], "o"),
    "int8": (_LIGHT["grey"], "s"),
    "int4": (_LIGHT["orange"], "^"),
    "int3": (_LIGHT["pink"], "v"),
    "int2": (_LIGHT["red"], "D"),
}
#: Inches of a plot over the whole width of a page.
WIDE = 10.6
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": LINE,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "text.color": INK,
    "text.parse_math": False,  # names of layers may hold dollars
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "signbook",
}


def as_svg(draw: Callable[P, Figure]) -> Callable[P, str]:
    """Turn a function that draws a figure into one that returns it as SVG for inlining.

    Identifiers start with a hash of the drawing: two plots on a page share none.
    """

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> str:
        buffer = io.StringIO()
        with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
            # The reader's browser has the glyphs that matplotlib's font lacks.
            warnings.filterwarnings("ignore", message="(?s)Glyph .* missing", category=UserWarning)
            figure = draw(*args, **kwargs)
            figure.savefig(buffer, format="svg", metadata={"Date": None}, bbox_inches="tight")
        text = buffer.getvalue()
        text = text[text.index("<svg") :]
        key = "p" + hashlib.sha256(text.encode()).hexdigest()[:8]
        text = re.sub(r'( id="|href="#|url\(#)', rf"\1{key}-", text)
        text = re.sub(r"(fill|stroke): (#[0-9a-f]{6})", _as_variable, text)
        size = r'width="([\d.]+)pt" height="[\d.]+pt"'  # let the page scale it, to its own size
        return re.sub(size, r'class="plot" style="max-width: \1pt"', text, count=1)

    return drawn


def _as_variable(found: re.Match[str]) -> str:
    prop, colour = found.groups()
    name = _NAMES.get(colour)
    return f"{prop}: var(--{name}, {colour})" if name else found[0]


def make_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure of that many inches, and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def legend_above(axes: Axes, **settings: Any) -> None:
    """Put the legend above the axes, at their right end."""
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), borderpad=0, **settings)


def label_box() -> dict[str, Any]:
    """What stands behind a label that lies on lines."""
    return {"facecolor": PAPER, "edgecolor": "none", "alpha": 0.8, "pad": 0.8}


def run_look(run: str, number: int) -> tuple[str, str]:
    """Colour and marker of a run; the number chooses those of a name that is not known."""
    return _RUNS.get(run, (SERIES[(number + 2) % len(SERIES)], "Pp*Xh"[number % 5]))


def short(name: str, length: int = 36) -> str:
    """A name that fits beside a plot: one line, its middle left out if it is long."""
    name = "".join(letter if letter.isprintable() else "\ufffd" for letter in name)
    if len(name) <= length:
        return name
    return f"{name[: length // 3]}…{name[len(name) - (length - 1 - length // 3) :]}"


def compact(value: float) -> str:
    """A number in a few letters.

    >>> [compact(v) for v in (0, 0.25, 12, 1250, 30_200_000, 4e9)]
    ['0', '0.25', '12', '1.25k', '30.2M', '4G']
    """
    for factor, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g}{letter}" if value < 1e15 else f"{value:.2g}"
    return f"{value:.3g}"


def value_axis(axis: Axis) -> None:
    """Write an axis of amounts from zero in a few short numbers."""
    axis.set_major_locator(MaxNLocator(5))
    axis.set_major_formatter(FuncFormatter(lambda value, _: compact(value)))


def log_axis(axis: Axis, low: float, high: float, ticks: Sequence[float] = ()) -> None:
    """Write plain numbers on a logarithmic axis: given ones, or round ones."""
    if ticks:
        axis.set_major_locator(FixedLocator(list(ticks)))
    else:
        few = math.log10(high / low) < 2.2
        axis.set_major_locator(LogLocator(10, subs=(1, 2, 5) if few else (1,), numticks=12))
    shown = (lambda value, _: f"{value:g}") if ticks else (lambda value, _: compact(value))
    axis.set_major_formatter(FuncFormatter(shown))
    axis.set_minor_locator(NullLocator())
