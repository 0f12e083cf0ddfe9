"""Sections of ``signbook.sweep/1`` documents."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from hwsim.sweep.document import Row, Sweep
from hwsim.sweep.objectives import OBJECTIVES
from signbook import plots
from signbook.plots.style import short
from signbook.plots.surface import GOAL, NO_GAIN
from signbook.reporting.measured import ENGINES
from signbook.reporting.parts import Card, Part, Section, Table, number, ratio, settings, share

__all__ = ["Measured", "swept_section"]

#: Rows of the front, and reasons, that a table lists.
_FRONT, _REASONS = 40, 8
#: Letters of a reason.
_LETTERS = 240


@dataclass(frozen=True)
class Measured:
    """A point that RTL measured, from a document of its own.

    Attributes
    ----------
    name : str
        By which the report knows the document.
    m : int or None
        Rows of activations, if all layers have as many.
    methods : sequence of str
    bytes_per_cycle, multipliers, speedup : float
    """

    name: str
    m: int | None
    methods: Sequence[str]
    bytes_per_cycle: float
    multipliers: float
    speedup: float


def swept_section(number_: int, sweep: Sweep, file: str, measured: Sequence[Measured]) -> Section:
    """One sweep: its surfaces, its front, and what could not be measured."""
    engines = [e for e in ENGINES if any(row.engine == e for row in sweep.done)]
    section = Section(f"{number_}. Sweep: {file.removesuffix('.json')}", engines, file)
    best = max((row.speedup for row in sweep.done if row.speedup is not None), default=None)
    section.cards.append(Card(number(len(sweep.done)), "points measured"))
    if best is not None:
        section.cards.append(Card(ratio(best), "faster than int8 at the best of them"))
    section.parts.append(_space(sweep))
    for (target, recipe), rows in _series(sweep.done).items():
        part = _surface(_title(target, recipe), recipe, rows, measured)
        if part is not None:
            section.parts.append(part)
    section.parts.extend(part for part in (_front(sweep), _missing(sweep)) if part is not None)
    return section


def _title(target: str, recipe: str | None) -> str:
    target = target.rpartition("/")[2]
    return f"{target}, {recipe}" if recipe else target


def _series(rows: Iterable[Row]) -> dict[tuple[str, str | None], list[Row]]:
    found: dict[tuple[str, str | None], list[Row]] = {}
    for row in rows:
        found.setdefault((row.point.target, row.point.recipe), []).append(row)
    return found


def _space(sweep: Sweep) -> Part:
    """The values that each axis takes."""
    points = [row.point for row in sweep.rows]
    axes: dict[str, list[object]] = {
        "target": [point.target.rpartition("/")[2] for point in points],
        "recipe": [point.recipe for point in points],
        "memory": [point.memory for point in points],
        "rows M": [point.rows for point in points],
    }
    for key in dict.fromkeys(key for point in points for key in point.accelerator):
        axes[key] = [point.accelerator.get(key) for point in points]
    rows = []
    for name, values in axes.items():
        texts = [str(value) for value in dict.fromkeys(values) if value is not None]
        if texts:
            shown = ", ".join(texts[:12]) + (f", and {len(texts) - 12} more" if texts[12:] else "")
            rows.append((name, shown))
    counts = Counter(row.engine for row in sweep.done if row.engine)
    engines = ", ".join(f"{ENGINES[e]} {count:,} points" for e, count in counts.items())
    rows.append(("measured by", engines or "nothing was measured"))
    if sweep.versions:
        rows.append(("versions", settings(sweep.versions)))
    return Part("The space", table=Table((), rows, texts=2))


def _surface(
    title: str, recipe: str | None, rows: Sequence[Row], measured: Sequence[Measured]
) -> Part | None:
    """Panels of one target and recipe, or None where neither axis has two values."""
    usable = [row for row in rows if row.speedup and row.multipliers and row.bytes_per_cycle]
    ms = sorted({row.rows for row in usable}, key=lambda m: (m is None, m or 0))
    panels = [_panel(m, [row for row in usable if row.rows == m], recipe, measured) for m in ms]
    panels = [panel for panel in panels if panel.speedups.size > 1]
    if not panels:
        return None
    values = np.concatenate([panel.speedups[~np.isnan(panel.speedups)] for panel in panels])
    over, none = int((values >= GOAL).sum()), int((values < NO_GAIN).sum())
    bits = {row.bits_per_weight for row in usable} - {None}
    limit = f" 8 / bits per weight is {8 / max(b for b in bits if b):.2f}." if bits else ""
    engines = _engines(usable)
    marks = any(panel.marks for panel in panels)
    note = (
        f"Speed-up over int8 by {engines}. {over} of {len(values)} places reach {GOAL:g}x; the "
        f"line labelled {GOAL:g}x, where there is one, is interpolated between places. {none} gain "
        f"less than {100 * (NO_GAIN - 1):.0f} % and are hatched: there reading weights is not the "
        f"limit.{limit} Where points differ in other settings only, the one with the fewest cycles "
        "counts."
    )
    if marks:
        note += (
            " Diamonds are RTL runs, their values below them: points of this sweep, or documents "
            "of this page (by number) with the same M and a method of this recipe, which may have "
            "other layers."
        )
    return Part(
        f"Speed-up surface: {title}", plots.surface(panels), _pivot(panels), note, wide=True
    )


def _engines(rows: Sequence[Row]) -> str:
    used = [e for e in ENGINES if any(row.engine == e for row in rows)]
    if len(used) == 2:
        return "the cycle model, and by RTL where a diamond says so"
    return ENGINES[used[0]]


def _panel(
    m: int | None, rows: Sequence[Row], recipe: str | None, measured: Sequence[Measured]
) -> plots.Panel:
    xs = sorted({row.bytes_per_cycle or 0.0 for row in rows})
    ys = sorted({float(row.multipliers or 0) for row in rows})
    model = [row for row in rows if row.engine == "model"]
    speedups = np.full((len(ys), len(xs)), np.nan)
    for row in sorted(model or rows, key=lambda row: -(row.cycles or 0)):
        place = ys.index(float(row.multipliers or 0)), xs.index(row.bytes_per_cycle or 0.0)
        speedups[place] = row.speedup
    marks = [
        (row.bytes_per_cycle or 0.0, float(row.multipliers or 0), f"RTL {row.speedup:.2f}")
        for row in rows
        if model and row.engine == "rtl"
    ]
    marks += [
        (one.bytes_per_cycle, one.multipliers, f"RTL {one.speedup:.2f} ({one.name})")
        for one in measured
        if one.m == m and (recipe is None or set(one.methods) & set(re.split(r"\W+", recipe)))
    ]
    title = f"M = {m:,}" if m is not None else "M by layer"
    return plots.Panel(title, xs, ys, speedups, marks)


def _pivot(panels: Sequence[plots.Panel]) -> Table:
    """Speed-ups of all panels: a line for each array, a column for each bandwidth."""
    xs = sorted({x for panel in panels for x in panel.bandwidths})
    rows = []
    for panel in panels:
        for j, multipliers in enumerate(panel.multipliers):
            values = zip(panel.bandwidths, panel.speedups[j].tolist(), strict=True)
            at = {x: value for x, value in values if not math.isnan(value)}
            rows.append([panel.title, number(multipliers), *(ratio(at.get(x)) for x in xs)])
    return Table(["M", "multipliers", *(f"{x:g} B/cycle" for x in xs)], rows, texts=1, sorts=True)


def _front(sweep: Sweep) -> Part | None:
    if not sweep.pareto or not sweep.objectives:
        return None
    fields = {name: OBJECTIVES[name] for name in sweep.objectives}
    numbers = {index: i for i, index in enumerate(sweep.pareto, 1)}
    several = len({row.rows for row in sweep.done}) > 1
    marks = []
    x, y = [*fields.values(), *fields.values()][:2]
    for index, row in enumerate(sweep.rows):
        at = getattr(row, x.field), getattr(row, y.field)
        if row.status == "done" and None not in at:
            series = _title(row.point.target, row.point.recipe)
            series += f", M = {row.rows:,}" if several and row.rows else ""
            marks.append(plots.Mark(*at, series, numbers.get(index)))
    head = ["#", "target", "recipe", "memory", "M", "accelerator", "engine"]
    head += [axis.label for axis in fields.values()]
    more = [name for name in ("cycles", "speedup", "bits_per_weight") if name not in fields]
    head += [OBJECTIVES[name].label for name in more]
    rows = []
    for index, i in list(numbers.items())[:_FRONT]:
        row, point = sweep.rows[index], sweep.rows[index].point
        rows.append([
            str(i), point.target.rpartition("/")[2], point.recipe or "–", point.memory,
            number(point.rows or row.rows), settings(point.accelerator) or "defaults",
            ENGINES[row.engine or "model"],
            *(number(getattr(row, axis.field)) for axis in fields.values()),
            *(number(getattr(row, name)) for name in more),
        ])  # fmt: skip
    note = "No other point of the sweep is as good in every objective and better in one: "
    note += ", ".join(axis.label for axis in fields.values()) + "."
    if len(fields) > 2:
        note += " The plot shows the first two; a point can be on the front by the others."
    if len(sweep.pareto) > _FRONT:
        note += f" The table lists the first {_FRONT} of {len(sweep.pareto)}."
    two = len(fields) > 1 and marks
    return Part(
        "Pareto front",
        plots.pareto(marks, x=x.label, y=y.label) if two else None,
        Table(head, rows, texts=7, sorts=True),
        note,
        wide=True,
    )


def _missing(sweep: Sweep) -> Part | None:
    """Points without figures, by status and reason."""
    reasons = Counter(
        (row.status, short(" ".join((row.error or "no reason given").split()), _LETTERS))
        for row in sweep.rows
        if row.status != "done"
    )
    if not reasons:
        return None
    rows = [
        (status, text, number(count)) for (status, text), count in reasons.most_common(_REASONS)
    ]
    left = sum(reasons.values())
    note = f"{left:,} of {len(sweep.rows):,} points ({share(left, len(sweep.rows))})."
    if len(reasons) > _REASONS:
        note += f" The {_REASONS} most frequent reasons of {len(reasons)}."
    return Part(
        "Not measured", table=Table(["status", "reason", "points"], rows, texts=2), note=note
    )
