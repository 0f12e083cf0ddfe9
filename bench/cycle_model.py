"""The cycle model beside the RTL, on the same work and in one run: counters, and time.

Every counter of every layer must be equal, or the bench ends. Times are processor time, the
simulator's from its start to its end and the model's for the prediction alone, with both already
compiled; ``spread`` is half the range of the ratio over the repetitions. Networks that no simulator
finishes are timed in the model alone.
"""

import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from accelerator import BLOCK, FORMATS, ROWS
from harness import Bench

from hwsim import parse_memory, simulate
from hwsim.cycles import predict
from hwsim.program import Program, assemble, steps_of_layers
from hwsim.workloads import plan_workload, workload
from rtl import AcceleratorConfig
from vq import SSVQ, Int8, Recipe
from vq.container import open_container, write_container

MEMORIES = {
    "ideal": "ideal:bytes_per_cycle=16,latency=20",
    "ddr4-2400": "ddr4-2400",
    "lpddr4-3200": "lpddr4-3200",
}
NETWORKS = ("llama-2-7b:m=1,context=512", "resnet-50", "deit-tiny")
RECIPES = {"ssvq d=8 k=256": Recipe({"*": SSVQ(d=8, k=256)}), "int8": Recipe({"*": Int8()})}


def simulator_seconds(run: Callable[[], object]) -> float:
    """Processor time of the processes that a function starts and ends."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def model_seconds(config: AcceleratorConfig, program: Program, memory: str) -> tuple[float, int]:
    """Processor time of one prediction, and the cycles that it predicts."""
    behind = parse_memory(memory)
    start = time.process_time()
    counts = predict(config, program, behind)
    return time.process_time() - start, counts.registers["CYCLES"]


def beside_rtl(
    form: str, rows: int, memory: str, repetitions: int, *, blocks: int = 1
) -> dict[str, float]:
    """The block of ``bench/accelerator.py`` in both, so many times."""
    shapes = {f"{i}.{name}": shape for i in range(blocks) for name, shape in BLOCK.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layers.vq.safetensors"
        write_container(path, [FORMATS[form](name, shape) for name, shape in shapes.items()])
        run = partial(simulate, path, config=ROWS, memory=memory, rows=rows, methods=())
        run(check=True)  # compiles what is not compiled yet
        with open_container(path) as container:
            program = assemble(steps_of_layers(container, rows), container, ROWS)
        rtl, model = [], []
        for _ in range(repetitions):
            rtl.append(simulator_seconds(run))
            fast = [model_seconds(ROWS, program, memory) for _ in range(5)]
            model.append(statistics.median(seconds for seconds, _ in fast))
        cycles = fast[0][1]
    ratios = [slow / quick for slow, quick in zip(rtl, model, strict=True)]
    return {
        "cycles": cycles,
        "rtl_cycles_per_second": cycles / statistics.median(rtl),
        "model_cycles_per_second": cycles / statistics.median(model),
        "ratio": statistics.median(ratios),
        "ratio spread": (max(ratios) - min(ratios)) / 2,
    }


def network(text: str, arm: str, memory: str) -> dict[str, float]:
    """A whole network in the model, with the time to lay it out counted apart."""
    config = AcceleratorConfig()
    start = time.process_time()
    planned = plan_workload(workload(text), RECIPES[arm], config)
    program = assemble(planned.steps, planned.file, config)
    layout = time.process_time() - start
    seconds, cycles = model_seconds(config, program, memory)
    return {
        "cycles": cycles,
        "seconds": seconds,
        "layout_seconds": layout,
        "model_cycles_per_second": cycles / seconds,
    }


def main() -> None:
    """Measure every row and print the table."""
    bench = Bench("cycle_model", __doc__, seeds=1)
    repetitions, forms = (1, ["ssvq d=8 k=256"]) if bench.quick else (3, list(FORMATS))
    for form in forms:
        for name, memory in MEMORIES.items():
            for rows in (1,) if bench.quick or form not in ("ssvq d=8 k=256", "int4") else (1, 256):
                run = partial(beside_rtl, form, rows, memory, repetitions)
                bench.measure(f"block m={rows}@{name}", form, 0, run)
    if not bench.quick:
        run = partial(beside_rtl, "ssvq d=8 k=256", 256, MEMORIES["ideal"], 1, blocks=6)
        bench.measure("minilm m=256@ideal", "ssvq d=8 k=256", 0, run)
    for text in NETWORKS[1:] if bench.quick else NETWORKS:
        for arm in RECIPES:
            for name, memory in MEMORIES.items():
                bench.measure(f"{text}@{name}", arm, 0, partial(network, text, arm, memory))
    bench.finish()


if __name__ == "__main__":
    main()
