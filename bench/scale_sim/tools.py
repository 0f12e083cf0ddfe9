"""Both tools on one topology file; run as a program, one of them in a process of its own.

    python bench/scale_sim/tools.py scale-sim|signbook JOB.json

The process prints one JSON document: what the tool counts for every row of the file, and the
seconds from opening the file to having that, imports excluded, by the clock and of the processor.
"""

import builtins
import contextlib
import csv
import importlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

__all__ = ["SRAM_KB", "TOOLS", "accelerator", "scale_sim", "signbook"]

#: Each of SCALE-Sim's three buffers, and each of the two of our instance. Cycles without stalls do
#: not depend on it; larger buffers make SCALE-Sim faster.
SRAM_KB = 1024

_CONFIG = """
[general]
run_name = run
[architecture_presets]
ArrayHeight = {rows}
ArrayWidth = {columns}
IfmapSramSzkB = {sram}
FilterSramSzkB = {sram}
OfmapSramSzkB = {sram}
IfmapOffset = 0
FilterOffset = 10000000
OfmapOffset = 20000000
Bandwidth = {bandwidth}
Dataflow = {dataflow}
ReadRequestBuffer = 32
WriteRequestBuffer = 32
[layout]
IfmapCustomLayout = False
FilterCustomLayout = False
IfmapSRAMBankBandwidth = {bandwidth}
IfmapSRAMBankNum = 1
IfmapSRAMBankPort = 1
FilterSRAMBankBandwidth = {bandwidth}
FilterSRAMBankNum = 1
FilterSRAMBankPort = 1
[sparsity]
SparsitySupport = False
[run_presets]
InterfaceBandwidth = {mode}
UseRamulatorTrace = False
"""


def scale_sim(job: dict[str, Any]) -> dict[str, Any]:
    """Run SCALE-Sim.

    Parameters
    ----------
    job : dict
        ``topology``, ``gemm`` (whether its columns are M, N, K), ``rows``, ``columns``,
        ``dataflow``, and ``bandwidth``: words per cycle of each of its three interfaces, or None
        for its stall-free mode.

    Returns
    -------
    dict
        ``layers``: ``cycles``, ``stall_cycles`` and ``cycles_with_prefetch`` of each row;
        ``seconds`` and ``cpu_seconds``.
    """
    from scalesim.scale_sim import scalesim

    _allow_arrays_of_one()
    user = job["bandwidth"] is not None
    with tempfile.TemporaryDirectory() as name, open(os.devnull, "w") as silence:
        folder = Path(name)
        config, layout = folder / "run.cfg", folder / "layout.csv"
        config.write_text(
            _CONFIG.format(
                rows=job["rows"], columns=job["columns"], dataflow=job["dataflow"], sram=SRAM_KB,
                mode="USER" if user else "CALC", bandwidth=job["bandwidth"] or 1,
            )
        )  # fmt: skip
        layout.write_text("Layer name\n")  # it must be there, even where no layout is given
        since = _clocks()
        with contextlib.redirect_stdout(silence):
            scalesim(
                save_disk_space=True, verbose=False, config=str(config), layout=str(layout),
                topology=job["topology"], input_type_gemm=job["gemm"],
            ).run_scale(top_path=name)  # fmt: skip
        taken = _taken(since)
        with (folder / "run" / "COMPUTE_REPORT.csv").open() as file:
            report = list(csv.DictReader(file, skipinitialspace=True))
    return {
        "layers": [
            {
                "cycles": int(row["Total Cycles"]),
                "stall_cycles": int(row["Stall Cycles"]),
                "cycles_with_prefetch": int(row["Total Cycles (incl. prefetch)"]),
            }
            for row in report
        ],
        **taken,
    }


def _allow_arrays_of_one() -> None:
    """Let SCALE-Sim 3.0.0 run with numpy from 2.4 on, which takes no array of one for a number.

    Its memories turn the largest of a list of such arrays into an int.
    """
    import numpy as np

    try:
        int(np.ones(1))
    except TypeError:
        pass
    else:
        return

    def largest(*values: Any) -> Any:
        found = builtins.max(*values)
        return found.item() if isinstance(found, np.ndarray) else found

    for name in ("double_buffered_scratchpad_mem", "read_buffer", "write_buffer"):
        vars(importlib.import_module(f"scalesim.memory.{name}"))["max"] = largest


def signbook(job: dict[str, Any]) -> dict[str, Any]:
    """Run our cycle model, with int8 weights and an ideal memory.

    Parameters
    ----------
    job : dict
        ``topology``, ``rows``, ``columns``, ``bus_bits``; the memory keeps the bus busy.

    Returns
    -------
    dict
        ``layers``: ``cycles``, ``busy_cycles``, ``stall_cycles`` and ``strips`` (positions of each
        descriptor) of each row; ``seconds`` and ``cpu_seconds``.
    """
    from hwsim.cycles import predict
    from hwsim.memory import IdealMemory
    from hwsim.program import assemble
    from hwsim.workloads import plan_workload, read_topology
    from rtl import RUN_CAUSES
    from vq import Int8, Recipe

    since = _clocks()
    config = accelerator(job)
    workload = read_topology(job["topology"])
    planned = plan_workload(workload, Recipe({"*": Int8()}), config)
    program = assemble(planned.steps, planned.file, config)
    memory = IdealMemory(bytes_per_cycle=config.bus_bytes, latency_cycles=20)
    prediction = predict(config, program, memory)
    found: dict[str, dict[str, Any]] = {}
    for layer, record in zip(program.layers, prediction.records, strict=True):
        row = found.setdefault(
            layer.step.name,
            {
                "cycles": 0,
                "busy_cycles": 0,
                "stall_cycles": dict.fromkeys(RUN_CAUSES, 0),
                "strips": [],
            },
        )
        row["cycles"] += record.cycles
        row["busy_cycles"] += record.busy_cycles
        for cause, cycles in record.stall_cycles.items():
            row["stall_cycles"][cause] += cycles
        row["strips"].append(layer.rows * layer.step.target.width)
    return {"layers": list(found.values()), **_taken(since)}


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _taken(since: tuple[float, float]) -> dict[str, float]:
    wall, cpu = (now - then for now, then in zip(_clocks(), since, strict=True))
    return {"seconds": wall, "cpu_seconds": cpu}


def accelerator(job: dict[str, Any]) -> Any:
    """The instance of a job."""
    from rtl import AcceleratorConfig

    return AcceleratorConfig(
        rows=job["rows"],
        columns=job["columns"],
        bus_bits=job["bus_bits"],
        input_bytes=SRAM_KB << 10,
        output_bytes=SRAM_KB << 10,
    )


#: Functions by the names of the tools.
TOOLS = {"scale-sim": scale_sim, "signbook": signbook}


if __name__ == "__main__":
    print(json.dumps(TOOLS[sys.argv[1]](json.loads(Path(sys.argv[2]).read_text()))))
