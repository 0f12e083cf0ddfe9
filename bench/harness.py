"""What every bench shares: arguments, finished work that is kept, one table, one JSON document.

A bench measures (work, arm, seed) one after another. Each finished measurement is appended to
``out/bench/NAME.jsonl``; a bench that was stopped goes on where it was.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from signbook.files import make_folder, write_json
from signbook.report import versions

__all__ = ["Bench"]


@dataclass(frozen=True)
class _Key:
    work: str
    arm: str
    seed: int
    budget: str


class Bench:
    """One bench: measure, then :meth:`finish`.

    Parameters
    ----------
    name : str
        Name of the script.
    description : str
        What it measures, for ``--help``.
    seeds : int
        Seeds per arm unless ``--seeds`` says otherwise.
    """

    def __init__(self, name: str, description: str, *, seeds: int) -> None:
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument("--json", type=Path, metavar="FILE", help="write the document there")
        parser.add_argument("--seeds", type=int, default=seeds, help="seeds per arm (%(default)s)")
        parser.add_argument("--quick", action="store_true", help="small budget, no claim attached")
        parser.add_argument("--fresh", action="store_true", help="forget finished measurements")
        self.arguments = parser.parse_args()
        self.name = name
        self.quick: bool = self.arguments.quick
        self.seeds = range(self.arguments.seeds)
        self._start = time.monotonic()
        self._journal = make_folder(Path("out/bench")) / f"{name}.jsonl"
        if self.arguments.fresh:
            self._journal.unlink(missing_ok=True)
        self._done = self._load()
        self._used: dict[_Key, dict[str, float]] = {}

    def _load(self) -> dict[_Key, dict[str, float]]:
        if not self._journal.exists():
            return {}
        done = {}
        for line in self._journal.read_text().splitlines():
            try:
                row = json.loads(line)
            except ValueError:  # the line that was being written when the bench was stopped
                continue
            done[_Key(**row["key"])] = row["metrics"]
        return done

    def measure(
        self, work: str, arm: str, seed: int, run: Callable[[], Mapping[str, float]]
    ) -> dict[str, float]:
        """Return the metrics of one measurement, from the journal if it is there already.

        ``run`` returns metrics by name; ``bits_per_weight`` among them becomes its own column.
        """
        key = _Key(work, arm, seed, "quick" if self.quick else "full")
        if key not in self._done:
            self._keep(key, {name: float(value) for name, value in run().items()})
        self._used[key] = self._done[key]
        return self._done[key]

    def choose(self, work: str, arm: str, options: Mapping[str, Callable[[], float]]) -> str:
        """Return the option with the lowest value; each is measured once and kept in the journal.

        For choosing learning rates on held-out training data, with equal effort for every arm.
        """
        values = {}
        for option, run in options.items():
            key = _Key(f"{work}: choice of {arm}", option, -1, "quick" if self.quick else "full")
            if key not in self._done:
                self._keep(key, {"value": float(run())})
            values[option] = self._done[key]["value"]
        return min(values, key=values.__getitem__)

    def _keep(self, key: _Key, metrics: dict[str, float]) -> None:
        self._done[key] = metrics
        with self._journal.open("a") as file:
            file.write(json.dumps({"key": key.__dict__, "metrics": metrics}) + "\n")

    def finish(self) -> dict[str, Any]:
        """Print the table, write the JSON document and return it."""
        groups: dict[tuple[str, str, str], list[float]] = {}
        bits: dict[tuple[str, str], list[float]] = {}
        for key, metrics in self._used.items():
            for metric, value in metrics.items():
                if metric == "bits_per_weight":
                    bits.setdefault((key.work, key.arm), []).append(value)
                else:
                    groups.setdefault((key.work, key.arm, metric), []).append(value)
        rows = [
            {
                "work": work,
                "arm": arm,
                "metric": metric,
                "mean": statistics.fmean(values),
                "stderr": _stderr(values),
                "seeds": len(values),
                "bits_per_weight": statistics.fmean(bits[work, arm])
                if (work, arm) in bits
                else None,
            }
            for (work, arm, metric), values in groups.items()
        ]
        document = {
            "schema": "signbook.bench/1",
            "name": self.name,
            "rows": rows,
            "versions": versions(),
            "seconds": round(time.monotonic() - self._start, 3),
        }
        self._print(rows)
        if self.arguments.json:
            write_json(self.arguments.json, document)
        return document

    def _print(self, rows: list[dict[str, Any]]) -> None:
        """One line per work and arm, one column per metric: mean ± standard error."""
        title = f"{self.name} (quick: no claim attached)" if self.quick else self.name
        table = Table(title=title, title_justify="left")
        metrics = list(dict.fromkeys(row["metric"] for row in rows))
        for column in ("work", "arm", "seeds", "bits/weight", *metrics):
            table.add_column(column, justify="left" if column in ("work", "arm") else "right")
        lines: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
        for row in rows:
            lines.setdefault((row["work"], row["arm"]), {})[row["metric"]] = row
        for (work, arm), line in lines.items():
            first = next(iter(line.values()))
            bpw = first["bits_per_weight"]
            cells = [_cell(line.get(metric)) for metric in metrics]
            table.add_row(
                work, arm, str(first["seeds"]), "" if bpw is None else f"{bpw:.3f}", *cells
            )
        Console(width=160).print(table)


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    spread = f" ±{row['stderr']:.2g}" if row["seeds"] > 1 else ""
    mean = row["mean"]
    return (f"{mean:,.0f}" if mean == int(mean) and mean > 1000 else f"{mean:.4g}") + spread


def _stderr(values: list[float]) -> float:
    """Standard error of the mean; 0 for a single value, which has no spread to show."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
