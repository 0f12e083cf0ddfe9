"""SCALE-Sim v3 beside our cycle model: the same topologies, the same array, row by row.

Every different layer of a network goes through SCALE-Sim (weight stationary, without stalls) in a
process of its own; the whole network goes through our model, as the same topology file, with int8
weights and a memory that keeps the bus busy. ``why`` says where the difference comes from: causes
in cycles that SCALE-Sim counts and we do not (negative: the other way round), which sum to it. The
closed form of SCALE-Sim's cycles must give its number for every row, or the bench fails; so must
that of our busy cycles. Output and input stationary are there by their closed forms, which are
checked on the smallest layer.

``wall`` is both tools on one whole network, in turns, ``--seeds`` times: seconds of the work, and
with the start of the process. Cycles have no spread.
"""

import functools
import importlib.util
import json
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
from peers.folds import DATAFLOWS, causes, folds
from peers.tools import accelerator, signbook

from hwsim.run import LayerRecord
from hwsim.workloads import Workload, WorkloadLayer, read_topology, workload, write_topology
from vq.errors import ConfigError

#: Networks and edges of the square array; ``True`` runs SCALE-Sim on every different layer, where
#: it takes less than an hour, and ``False`` takes its closed form.
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
QUICK_LAYERS = 3


class PeersBench(Bench):
    """A table for each work: they have different metrics."""

    def _print(self, rows: list[dict[str, Any]]) -> None:
        for work in dict.fromkeys(row["work"] for row in rows):
            super()._print([row for row in rows if row["work"] == work])


def run(tool: str, job: dict[str, Any]) -> dict[str, Any]:
    """A tool on a job, in a process of its own; with the seconds of all of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.json"
        path.write_text(json.dumps(job))
        program = Path(__file__).parent / "peers" / "tools.py"
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, str(program), tool, str(path)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        found: dict[str, Any] = json.loads(done.stdout)
    return found | {"with_start": time.perf_counter() - start}


def job_of(layers: Sequence[WorkloadLayer], path: Path, edge: int, **options: Any) -> dict[str, Any]:
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
    cycles = sum(row["cycles"] for row in found["layers"])
    stalls = sum(row["stall_cycles"] for row in found["layers"])
    want = folds(layer, edge, edge, job["dataflow"]).cycles
    if cycles - stalls != want:
        raise SystemExit(
            f"{layer.name}: closed form must give SCALE-Sim's {cycles - stalls} cycles, not {want}"
        )
    return {
        "layers": count,
        "cycles": count * cycles,
        "stalls": count * stalls,
        "seconds": count * found["seconds"],
        "with start": count * found["with_start"],
    }


def our_row(
    layer: WorkloadLayer, numbers: Sequence[int], rows: Sequence[dict[str, Any]], job: dict[str, Any]
) -> dict[str, float]:
    """All layers of one shape in our model, and the causes of the difference."""
    total: dict[str, float] = {"cycles": sum(rows[number]["cycles"] for number in numbers)}
    total["ratio"] = len(numbers) * folds(layer, job["rows"], job["columns"]).cycles
    total["ratio"] /= total["cycles"]
    for number in numbers:
        row = rows[number]
        record = LayerRecord(row["cycles"], row["busy_cycles"], row["stall_cycles"])
        for cause, cycles in causes(layer, row["strips"], accelerator(job), record).items():
            total[cause] = total.get(cause, 0) + cycles
    return {name: value for name, value in total.items() if value}


def measure_rows(bench: Bench, name: str, edge: int, simulated: bool, folder: Path) -> None:
    """Every different layer of a network, the sum, and other dataflows."""
    layers = topology(name)
    shapes = different(layers)
    if bench.quick:
        shapes.sort(key=lambda numbers: folds(layers[numbers[0]], edge, edge).cycles)
        shapes = sorted(shapes[:QUICK_LAYERS])
        layers = tuple(layers[number] for number in sorted(sum(shapes, [])))
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
            f"{work}, why", layer.name, 0, lambda n=numbers, l=layer: our_row(l, n, rows(), job)
        )
    measure = partial(bench.measure, f"{work}, whole", seed=0)
    ours = measure("signbook", run=lambda: {"cycles": sum(row["cycles"] for row in rows())})
    for dataflow in DATAFLOWS:
        cycles = sum(folds(layer, edge, edge, dataflow).cycles for layer in layers)
        whole = {"cycles": cycles, "ratio": cycles / ours["cycles"]}
        if simulated and dataflow == "ws":
            assert sum(row["cycles"] for row in found) == cycles
            whole |= {key: sum(row[key] for row in found) for key in ("seconds", "with start")}
        measure(f"scale-sim {dataflow}", run=lambda whole=whole: whole)
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

    def timed(tool: str) -> dict[str, float]:
        found = run(tool, job)
        return {"seconds": found["seconds"], "with start": found["with_start"]}

    signbook(job)  # compiles the model where it is not yet
    taken = {
        tool: [bench.measure(work, tool, seed, partial(timed, tool)) for seed in bench.seeds]
        for tool in ("scale-sim", "signbook")
    }
    for word, of in (("median", statistics.median), ("least", min), ("most", max)):
        ratios = {
            metric: of(
                theirs[metric] / ours[metric]
                for theirs, ours in zip(taken["scale-sim"], taken["signbook"], strict=True)
            )
            for metric in ("seconds", "with start")
        }
        bench.measure(work, f"ratio, {word}", 0, lambda ratios=ratios: ratios)


def main() -> None:
    """Measure every row and print the tables."""
    bench = PeersBench("peers", __doc__, seeds=3)
    if importlib.util.find_spec("scalesim") is None:
        raise ConfigError(
            "package 'scalesim' must be installed for this bench, not absent; "
            "pip install 'signbook[peers]' brings it"
        )
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
