"""SCALE-Sim v3 beside our cycle model: the same topologies, the same array, row by row.

Every different layer of a network goes through SCALE-Sim (weight stationary, without stalls) in a
process of its own; the whole network goes through our model, as the same topology file, with int8
weights and a memory that keeps the bus busy. ``why`` says what the cycles of both are made of:
vectors, which both count, and what each adds to them (``their``, ``our``). SCALE-Sim's closed form
must give its number for every row, or the bench fails; so must ours of the vectors. Output and
input stationary are there by their closed forms, which are checked on the smallest layer.

``wall`` is both tools on one whole network, in turns, ``--seeds`` times: seconds of the work, and
with the start of the process. Cycles have no spread.
"""

import functools
import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from harness import Bench
from scale_sim.folds import DATAFLOWS, folds, our_parts
from scale_sim.tools import accelerator, signbook

from hwsim.program.records import LayerRecord
from hwsim.workloads import Workload, WorkloadLayer, read_topology, workload, write_topology
from signbook.extras import require

#: Networks and edges of the square array, and whether SCALE-Sim runs on every different layer, or
#: its closed form stands for it: there it would take a quarter of an hour of the processor.
WORKS = (
    ("deit-tiny", 32, True),
    ("deit-tiny", 16, True),
    ("resnet-50", 32, True),
    ("resnet-50", 16, False),
)
WALL = ("resnet-20", 32)
#: Bytes per cycle of the bus, and words per cycle of each interface of SCALE-Sim, where bandwidth
#: is the same and not ample.
NARROW = 16
#: Fewest cycles first.
QUICK_LAYERS = 3
#: What a run says about its time.
TIMES = ("seconds", "seconds_with_start", "cpu_seconds", "cpu_seconds_with_start")


class PeersBench(Bench):
    """A table for each work: they have different metrics."""

    def _print(self, rows: list[dict[str, Any]]) -> None:
        for work in dict.fromkeys(row["work"] for row in rows):
            super()._print([row for row in rows if row["work"] == work])


def run(tool: str, job: dict[str, Any]) -> dict[str, Any]:
    """A tool on a job, in a process of its own; seconds ``with_start`` are of all of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.json"
        path.write_text(json.dumps(job))
        program = Path(__file__).parent / "scale_sim" / "tools.py"
        wall, cpu = time.perf_counter(), _children_seconds()
        done = subprocess.run(
            [sys.executable, str(program), tool, str(path)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
    wall, cpu = time.perf_counter() - wall, _children_seconds() - cpu
    found: dict[str, Any] = json.loads(done.stdout)
    return found | {"seconds_with_start": wall, "cpu_seconds_with_start": cpu}


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def times(found: dict[str, Any]) -> dict[str, float]:
    """Seconds of a run, for the table: by the clock and of the processor."""
    return {name.replace("_", " "): found[name] for name in TIMES}


def job_of(
    layers: Sequence[WorkloadLayer], path: Path, edge: int, **options: Any
) -> dict[str, Any]:
    """What both tools have to know; the layers are written as a topology."""
    write_topology(Workload(path.stem, tuple(layers)), path)
    job = {
        "topology": str(path),
        "gemm": all(layer.op == "linear" for layer in layers),
        "rows": edge,
        "columns": edge,
        "dataflow": "ws",
        "bandwidth": None,
        "bus_bits": min(512, edge * edge),
    }
    return job | options


def topology(name: str) -> tuple[WorkloadLayer, ...]:
    """Layers of a built-in network as its topology file has them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.csv"
        write_topology(workload(name), path)
        return read_topology(path).layers


def different(layers: Sequence[WorkloadLayer]) -> list[list[int]]:
    """Numbers of the layers of each shape, in the order in which shapes appear."""
    found: dict[tuple[object, ...], list[int]] = {}
    for number, layer in enumerate(layers):
        key = (layer.op, layer.inputs, layer.outputs, layer.rows, layer.height, layer.width)
        key += (layer.kernel, layer.stride, layer.padding, layer.groups)
        found.setdefault(key, []).append(number)
    return list(found.values())


def scale_sim_row(
    layer: WorkloadLayer, count: int, folder: Path, edge: int, **options: Any
) -> dict[str, float]:
    """One layer through SCALE-Sim, and what it takes for as many as there are."""
    job = job_of([layer], folder / "layer.csv", edge, **options)
    found = run("scale-sim", job)
    cycles, stalls, prefetched = (
        sum(row[key] for row in found["layers"])
        for key in ("cycles", "stall_cycles", "cycles_with_prefetch")
    )
    want = folds(layer, edge, edge, job["dataflow"]).cycles
    if cycles - stalls != want:
        raise SystemExit(
            f"{layer.name}: closed form must give SCALE-Sim's {cycles - stalls} cycles, not {want}"
        )
    return {
        "layers": count,
        "cycles": count * cycles,
        "stalls": count * stalls,
        "with prefetch": count * prefetched,
        "seconds": count * found["seconds"],
        "cpu seconds": count * found["cpu_seconds"],
    }


def compared(
    layer: WorkloadLayer,
    numbers: Sequence[int],
    rows: Sequence[dict[str, Any]],
    job: dict[str, Any],
) -> dict[str, float]:
    """All layers of one shape: both tools' cycles, and what they are made of."""
    there = folds(layer, job["rows"], job["columns"])
    count = len(numbers)
    ours = sum(rows[number]["cycles"] for number in numbers)
    found: dict[str, float] = {
        "scale-sim": count * there.cycles,
        "signbook": ours,
        "ratio": count * there.cycles / ours,
        "vectors": count * there.vectors,
        "their load": count * there.load_cycles,
        "their skew": count * there.skew_cycles,
    }
    for number in numbers:
        row = rows[number]
        record = LayerRecord(row["cycles"], row["busy_cycles"], row["stall_cycles"])
        for part, cycles in our_parts(layer, row["strips"], accelerator(job), record).items():
            found[f"our {part}"] = found.get(f"our {part}", 0) + cycles
    found["our passes"] = found.pop("our vectors") - found["vectors"]
    return {name: value for name, value in found.items() if value}


def measure_rows(bench: Bench, name: str, edge: int, simulated: bool, folder: Path) -> None:
    """Every different layer of a network, the sum, and other dataflows."""
    layers = topology(name)
    shapes = different(layers)
    if bench.quick:
        shapes.sort(key=lambda numbers: folds(layers[numbers[0]], edge, edge).cycles)
        chosen = sorted(itertools.chain.from_iterable(shapes[:QUICK_LAYERS]))
        layers = tuple(layers[number] for number in chosen)
        shapes = different(layers)
    work = f"{name} {edge}x{edge}"
    job = job_of(layers, folder / f"{name}.csv", edge)
    rows = functools.cache(lambda: signbook(job)["layers"])
    found = []
    for numbers in shapes:
        layer, count = layers[numbers[0]], len(numbers)
        if simulated:
            theirs = partial(scale_sim_row, layer, count, folder, edge)
            found.append(bench.measure(f"{work}, scale-sim", layer.name, 0, theirs))
        bench.measure(
            f"{work}, why", layer.name, 0, lambda n=numbers, l=layer: compared(l, n, rows(), job)
        )
    measure = partial(bench.measure, f"{work}, whole", seed=0)

    def whole() -> dict[str, float]:
        ours = run("signbook", job)
        return {"cycles": sum(row["cycles"] for row in ours["layers"]), **times(ours)}

    ours = measure("signbook", run=whole)
    for dataflow in DATAFLOWS:
        cycles = sum(folds(layer, edge, edge, dataflow).cycles for layer in layers)
        theirs = {"cycles": float(cycles)}
        if simulated and dataflow == "ws":
            # Its start is left out even beside ours with it: there was one for every row.
            for metric in ours:
                name = metric.removesuffix(" with start")
                theirs[metric] = sum(row[name] for row in found)
            assert theirs["cycles"] == cycles
        measure(f"scale-sim {dataflow}", run=lambda theirs=theirs: theirs)
        ratios = {name: theirs[name] / ours[name] for name in theirs}
        measure(f"scale-sim {dataflow} / signbook", run=lambda ratios=ratios: ratios)
    if simulated:
        smallest = min(layers, key=lambda layer: folds(layer, edge, edge).cycles)
        for dataflow in DATAFLOWS[1:]:
            theirs = partial(scale_sim_row, smallest, 1, folder, edge, dataflow=dataflow)
            bench.measure(f"{work}, {dataflow}", smallest.name, 0, theirs)


def measure_narrow(bench: Bench, name: str, edge: int, folder: Path) -> None:
    """Both tools with the same bandwidth: a bus here, each of three interfaces there."""
    layers = topology(name)
    shapes = different(layers)
    job = job_of(layers, folder / f"{name}.csv", edge, bus_bits=8 * NARROW)
    rows = functools.cache(lambda: signbook(job)["layers"])
    for numbers in shapes:
        layer, count = layers[numbers[0]], len(numbers)
        work = f"{name} {edge}x{edge}, {NARROW} B per cycle"
        theirs = partial(scale_sim_row, layer, count, folder, edge, bandwidth=NARROW)
        bench.measure(work, f"{layer.name}: scale-sim", 0, theirs)
        bench.measure(
            work,
            f"{layer.name}: signbook",
            0,
            lambda n=numbers: {"cycles": sum(rows()[number]["cycles"] for number in n)},
        )


def measure_wall(bench: Bench, name: str, edge: int, folder: Path) -> None:
    """Both tools on a whole network, in turns."""
    layers = topology(name)
    if bench.quick:
        layers = layers[-2:]
    job = job_of(layers, folder / f"{name}.csv", edge)
    work = f"wall {name} {edge}x{edge}"

    signbook(job)  # compiles the model where it is not yet
    taken: dict[str, list[dict[str, float]]] = {"scale-sim": [], "signbook": []}
    for seed in bench.seeds:
        for tool, found in taken.items():
            found.append(bench.measure(work, tool, seed, lambda t=tool: times(run(t, job))))
    for word, of in (("median", statistics.median), ("least", min), ("most", max)):
        ratios = {
            metric: of(
                theirs[metric] / ours[metric]
                for theirs, ours in zip(taken["scale-sim"], taken["signbook"], strict=True)
            )
            for metric in taken["signbook"][0]
        }
        bench.measure(work, f"ratio, {word}", 0, lambda ratios=ratios: ratios)


def main() -> None:
    """Measure every row and print the tables."""
    bench = PeersBench("peers", __doc__, seeds=3)
    require("scalesim", extra="peers", purpose="the comparison with SCALE-Sim")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measure_wall(bench, *WALL, folder)
        for work in WORKS[:1] if bench.quick else WORKS:
            measure_rows(bench, *work, folder)
            if work is WORKS[0] and not bench.quick:
                measure_narrow(bench, *work[:2], folder)
    bench.finish()


if __name__ == "__main__":
    main()
