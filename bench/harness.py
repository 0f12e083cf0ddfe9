"""What every bench shares: arguments, finished work that is kept, one table, one JSON document.

A bench measures (work, arm, seed) one after another. Each finished measurement is appended to
``out/bench/NAME.jsonl``; a bench that was stopped goes on where it was, and several processes may
share the work.
"""

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from signbook.files import make_folder, write_json
from signbook.report import versions

__all__ = ["RATES", "Bench"]

#: Learning rates to choose from, a half decade apart.
RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)


@dataclass(frozen=True)
class _Key:
    work: str
    arm: str
    seed: int
    budget: str
    setting: str = ""


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
    works, arms : sequence of str
        If given, ``--works`` and ``--arms`` choose among them, for pieces of long benches; what is
        chosen has the same names here.
    usual : sequence of str
        Those among them that are measured where the options name none; by default all.
    """

    def __init__(
        self,
        name: str,
        description: str,
        *,
        seeds: int,
        works: Sequence[str] = (),
        arms: Sequence[str] = (),
        usual: Sequence[str] = (),
    ) -> None:
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument("--json", type=Path, metavar="FILE", help="write the document there")
        parser.add_argument("--seeds", type=int, default=seeds, help="seeds per arm (%(default)s)")
        parser.add_argument("--quick", action="store_true", help="small budget, no claim attached")
        parser.add_argument("--fresh", action="store_true", help="forget finished measurements")
        for option, names in (("works", works), ("arms", arms)):
            if names:
                default = [name for name in names if name in usual] or names
                parser.add_argument(
                    f"--{option}", nargs="+", choices=names, default=default, metavar="NAME",
                    help=f"some of {', '.join(names)}",
                )  # fmt: skip
        self.arguments = parser.parse_args()
        self.name = name
        self.quick: bool = self.arguments.quick
        self.works: Sequence[str] = self.arguments.works if works else ()
        self.arms: Sequence[str] = self.arguments.arms if arms else ()
        self.seeds = range(self.arguments.seeds)
        self._start = time.monotonic()
        self._journal = make_folder(Path("out/bench")) / f"{name}.jsonl"
        if self.arguments.fresh:
            self._journal.unlink(missing_ok=True)
        self._images: dict[_Key, dict[str, NDArray[np.bool_]]] = {}
        self._done = self._load()
        self._used: dict[_Key, dict[str, float]] = {}

    def _lacks(self, key: _Key) -> bool:
        """Whether nobody has measured this yet."""
        if key not in self._done:
            self._done = self._load()  # another process may have
        return key not in self._done

    def _load(self) -> dict[_Key, dict[str, float]]:
        if not self._journal.exists():
            return {}
        done = {}
        for line in self._journal.read_text().splitlines():
            try:
                row = json.loads(line)
            except ValueError:  # the line that was being written when the bench was stopped
                continue
            key = _Key(**row["key"])
            done[key] = row["metrics"]
            self._images[key] = {n: _unpacked(*kept) for n, kept in row.get("images", {}).items()}
        return done

    def measure(
        self,
        work: str,
        arm: str,
        seed: int,
        run: Callable[[], Mapping[str, float | NDArray[np.bool_]]],
        *,
        setting: str = "",
        shown: bool = True,
    ) -> dict[str, float]:
        """Return the metrics of one measurement, from the journal if it is there already.

        ``run`` returns metrics by name; ``bits_per_weight`` among them becomes its own column.
        An array says which images were right: its mean is the metric, and arms can be compared
        image by image (:meth:`difference`). ``setting`` is whatever was chosen for the arm: a
        measurement with another one is not taken from the journal. Of several settings that are
        tried, only the one that is measured again is ``shown`` in the end.
        """
        key = _Key(work, arm, seed, "quick" if self.quick else "full", setting)
        if self._lacks(key):
            found = run()
            images = {name: v for name, v in found.items() if isinstance(v, np.ndarray)}
            self._keep(key, {name: float(np.mean(v)) for name, v in found.items()}, images)
        if shown:
            self._used[key] = self._done[key]
        return self._done[key]

    def choose(self, work: str, arm: str, loss: Callable[[float], float]) -> float:
        """Return the learning rate of lowest ``loss``, on training data that no training sees.

        Every arm searches by the same rule: the two rates in the middle of ``RATES``, and on in
        the direction of the better one until the loss rises. Each is kept in the journal.
        """

        def value(at: int) -> float:
            return self.tried(work, arm, f"{RATES[at]:g}", partial(loss, RATES[at]))

        best, other = len(RATES) // 2, len(RATES) // 2 - 1
        if value(other) < value(best):
            best, other = other, best
        step = best - other
        while 0 <= best + step < len(RATES) and value(best + step) < value(best):
            best += step
        return RATES[best]

    def tried(self, work: str, arm: str, option: str, loss: Callable[[], float]) -> float:
        """Return the loss of an option that an arm has, from the journal if it is there already."""
        key = _Key(f"{work}: choice of {arm}", option, -1, "quick" if self.quick else "full")
        if self._lacks(key):
            self._keep(key, {"value": float(loss())})
        return self._done[key]["value"]

    def difference(self, work: str, arm: str, other: str, *, same_images: bool) -> None:
        """Add a row for how many points ``arm`` is above ``other``, for every per-image metric.

        Arms are paired by seed, which gives the mean and its spread. Where the seeds share their
        test images, ``METRIC image_se`` is the part of the noise that they do not see: the
        standard error over images of the gain per image, averaged over the seeds.
        """
        budget = "quick" if self.quick else "full"
        images = {
            (key.arm, key.seed): self._images.get(key, {}) for key in self._used if key.work == work
        }
        gains: dict[str, list[NDArray[np.float64]]] = {}
        for seed in self.seeds:
            mine, theirs = images[arm, seed], images[other, seed]
            for metric in mine:
                gain = 100 * (mine[metric].astype(float) - theirs[metric])
                gains.setdefault(metric, []).append(gain)
                points = self._used.setdefault(_Key(work, f"{arm} - {other}", seed, budget), {})
                points[metric] = float(gain.mean())
        first = self._used[_Key(work, f"{arm} - {other}", self.seeds[0], budget)]
        for metric, found in gains.items() if same_images else ():
            mean = np.mean(found, axis=0)
            first[f"{metric} image_se"] = float(mean.std(ddof=1) / math.sqrt(len(mean)))

    def median(self, work: str, arm: str, metric: str, name: str) -> float:
        """Add ``name``, the median of a metric over the seeds: a mean would follow outliers."""
        keys = [key for key in self._used if (key.work, key.arm) == (work, arm)]
        found = statistics.median(self._used[key][metric] for key in keys)
        self._used[keys[0]] = self._used[keys[0]] | {name: found}
        return found

    def _keep(
        self,
        key: _Key,
        metrics: dict[str, float],
        images: Mapping[str, NDArray[np.bool_]] = MappingProxyType({}),
    ) -> None:
        self._done[key] = metrics
        self._images[key] = dict(images)
        packed = {
            n: (np.packbits(right).tobytes().hex(), len(right)) for n, right in images.items()
        }
        row = {"key": key.__dict__, "metrics": metrics, "images": packed}
        line = json.dumps(row).encode() + b"\n"
        with self._journal.open("a+b", buffering=0) as file:
            if file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
                line = b"\n" + line  # behind the line that a bench was stopped in
            file.write(line)  # as one: other processes write, too

    def finish(self, **facts: str) -> dict[str, Any]:
        """Print the table, write the JSON document and return it; ``facts`` are among versions."""
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
            "versions": versions() | facts,
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


def _unpacked(text: str, count: int) -> NDArray[np.bool_]:
    """Undo the packing of :meth:`Bench._keep`."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))[:count].astype(bool)


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    spread = f" ±{row['stderr']:.2g}" if row["seeds"] > 1 else ""
    mean = row["mean"]
    return (f"{mean:,.0f}" if mean == int(mean) and mean > 1000 else f"{mean:.4g}") + spread


def _stderr(values: list[float]) -> float:
    """Standard error of the mean; 0 for a single value, which has no spread to show."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
