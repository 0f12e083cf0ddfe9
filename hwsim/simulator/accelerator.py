"""Run programs on a simulated accelerator and hold its books against each other."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hwsim.defaults import DEFAULT_MEMORY
from hwsim.memory import Energy
from hwsim.program import Program
from hwsim.program.records import LayerRecord
from hwsim.simulator.traffic import Traffic
from hwsim.simulator.verilator import MEMORY_FILE, simulate_job
from rtl import RUN_CAUSES, AcceleratorConfig
from rtl.control.registers import register_map
from rtl.program import VECTOR_RECORD, RunStatus
from vq.container import GRANULE_BYTES, SimulationError

__all__ = ["Outcome", "Surroundings", "run_program", "run_programs"]


@dataclass(frozen=True)
class Surroundings:
    """Memory and host of a run.

    Attributes
    ----------
    memory : str
        See :func:`hwsim.memory.parse_memory`.
    traffic : Traffic
    timeout_cycles : int
        For the register TIMEOUT.
    idle_limit_cycles : int
        A run in which the memory sees nothing for this long has failed.
    runs : int
        How often a single program is run, without reset between.
    resets : tuple of int
        Before that: start, and reset after so many cycles.
    played : bool
        Read beats come from Verilog where that can be (:mod:`hwsim.simulator.playback`): the same
        in fewer seconds.
    """

    memory: str = DEFAULT_MEMORY
    traffic: Traffic = field(default_factory=Traffic)
    timeout_cycles: int = 1 << 20
    idle_limit_cycles: int = 1 << 21
    runs: int = 1
    resets: tuple[int, ...] = ()
    played: bool = True


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes
    ----------
    status : RunStatus
    failed_layer : int
        Number of the descriptor that failed, if any did.
    registers : dict of str to int
    records : list of LayerRecord
        One for each descriptor; none after an error.
    image : bytearray
        Memory after all runs.
    beats_read, read_bursts, beats_written, write_bursts : int
        Counted by the memory.
    energy : Energy or None
        Of the memory during the run, if its model knows any.
    wall_seconds : float
        Of the simulation; several runs share them by their cycles.
    """

    status: RunStatus
    failed_layer: int
    registers: dict[str, int]
    records: list[LayerRecord]
    image: bytearray
    beats_read: int
    read_bursts: int
    beats_written: int
    write_bursts: int
    energy: Energy | None
    wall_seconds: float


def run_program(
    config: AcceleratorConfig,
    program: Program,
    image: bytearray,
    surroundings: Surroundings | None = None,
    progress: Callable[[int], None] | None = None,
    waves: Path | None = None,
) -> list[Outcome]:
    """Simulate a program; return the outcome of each run.

    Raises
    ------
    SimulationError, OutputError
        See :func:`run_programs`.
    """
    around = surroundings or Surroundings()
    return run_programs(config, [program] * around.runs, image, around, progress, waves)


def run_programs(
    config: AcceleratorConfig,
    programs: Sequence[Program],
    image: bytearray,
    surroundings: Surroundings | None = None,
    progress: Callable[[int], None] | None = None,
    waves: Path | None = None,
) -> list[Outcome]:
    """Simulate programs one after another, without reset between; return the outcome of each.

    None is started after one that has ended with an error. ``waves`` is a file for all signals,
    in FST; it is there as a whole, or not at all.

    Raises
    ------
    SimulationError
        If the design breaks a rule of AXI, stands still, moves anything after it said done, or if
        its counters contradict each other or the memory's.
    OutputError
        If waves cannot be written.
    """
    around = surroundings or Surroundings()
    job = {
        "bus_bits": config.bus_bits,
        "registers": register_map(bool(config.vector_unit)),
        **dataclasses.asdict(around),
        "runs": [[program.address, len(program.layers)] for program in programs],
    }
    with simulate_job(
        config,
        "hwsim.simulator.accelerator_testbench",
        json.dumps(job),
        progress,
        memory=image,
        waves=waves,
    ) as done:
        runs = json.loads((done.folder / "result.json").read_text())["runs"]
        after = bytearray((done.folder / MEMORY_FILE).read_bytes())
        second = done.wall_seconds / sum(run["cycles"] for run in runs)
        return [
            _outcome(run, program, after, run["cycles"] * second)
            for program, run in zip(programs, runs, strict=False)
        ]


def _outcome(
    run: dict[str, Any], program: Program, image: bytearray, wall_seconds: float
) -> Outcome:
    registers = run["registers"]
    status = RunStatus(registers["STATUS"] >> 8 & 0xFF)
    finished = registers["LAYERS_DONE"]
    raw = (image[program.records + GRANULE_BYTES * i :][:GRANULE_BYTES] for i in range(finished))
    fine = status == RunStatus.OK
    # After an error, records may be missing or in a damaged place.
    records = [_record(bytes(granule), i) for i, granule in enumerate(raw)] if fine else []
    outcome = Outcome(
        status,
        registers["STATUS"] >> 16,
        registers,
        records,
        image,
        run["beats_read"],
        run["read_bursts"],
        run["beats_written"],
        run["write_bursts"],
        Energy(**run["energy"]) if run["energy"] else None,
        wall_seconds,
    )
    if status != RunStatus.STALLED:
        if run["moved_after"]:
            raise SimulationError("nothing may move on the bus after the interrupt, but it did")
        _check_books(outcome)
    return outcome


def _record(granule: bytes, number: int) -> LayerRecord:
    record = VECTOR_RECORD.from_bits(int.from_bytes(granule, "little"))
    if record.layer != number:
        raise SimulationError(f"record {number} must be of layer {number}, not {record.layer}")
    stalls = {cause: getattr(record, f"{cause}_cycles") for cause in RUN_CAUSES}
    if record.busy_cycles + sum(stalls.values()) != record.cycles:
        raise SimulationError(f"record {number}: busy and stall cycles must sum to cycles")
    return LayerRecord(record.cycles, record.busy_cycles, stalls)


def _check_books(outcome: Outcome) -> None:
    """Counters of the design against each other and against the memory's."""
    r = outcome.registers
    stalls = sum(r.get(f"{cause.upper()}_CYCLES", 0) for cause in RUN_CAUSES)
    reads = sum(value for name, value in r.items() if name.startswith("READ_")) - r["READ_BURSTS"]
    for what, given, want in (
        ("busy and stall cycles", r["BUSY_CYCLES"] + stalls, r["CYCLES"]),
        ("beats read by channel", reads, outcome.beats_read),
        ("read bursts", r["READ_BURSTS"], outcome.read_bursts),
        ("beats written", r["WRITTEN"], outcome.beats_written),
        ("write bursts", r["WRITE_BURSTS"], outcome.write_bursts),
    ):
        if given != want:
            raise SimulationError(f"{what} must sum to {want}, not {given}")
    for name in ("cycles", "busy_cycles"):
        of_layers = sum(getattr(record, name) for record in outcome.records)
        if of_layers > r[name.upper()]:
            raise SimulationError(f"{name} of layers must not exceed the run's, not {of_layers}")
