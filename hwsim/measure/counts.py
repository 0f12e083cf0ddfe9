"""What a run has counted, by whichever engine, as a RUN of the document."""

import dataclasses
from typing import Any, Protocol

from hwsim.memory import Energy
from hwsim.program import Program, Step
from hwsim.program.records import LayerRecord
from rtl import STALL_CAUSES, AcceleratorConfig
from rtl.program import PROGRAM_BYTES
from vq.container import SimulationError

__all__ = ["Counts", "run_document"]


class Counts(Protocol):
    """What a run has counted, or what the cycle model predicts.

    An :class:`~hwsim.simulator.accelerator.Outcome` is one.
    """

    @property
    def registers(self) -> dict[str, int]:
        """By name."""

    @property
    def records(self) -> list[LayerRecord]:
        """One for each descriptor."""

    @property
    def beats_read(self) -> int:
        """By the memory's count, as all below."""

    @property
    def read_bursts(self) -> int:
        """Requested."""

    @property
    def beats_written(self) -> int:
        """Of outputs and records."""

    @property
    def write_bursts(self) -> int:
        """Requested."""

    @property
    def energy(self) -> Energy | None:
        """Of the memory, if its model knows any."""

    @property
    def wall_seconds(self) -> float:
        """Time that the run took."""


def run_document(
    program: Program, counts: Counts, config: AcceleratorConfig, exact: bool | None
) -> dict[str, Any]:
    """One RUN of the document.

    Parameters
    ----------
    program : Program
    counts : Counts
    config : AcceleratorConfig
    exact : bool or None
        Whether all values in memory are as they should be, if there are any.

    Raises
    ------
    SimulationError
        If not all bytes were read.
    """
    read_bytes = counts.beats_read * config.bus_bytes
    expected = sum(layer.read_bytes for layer in program.layers)
    if read_bytes != expected:
        raise SimulationError(f"bytes read must be {expected}, not {read_bytes}")
    registers, energy = counts.registers, counts.energy
    weights = [layer.weights for layer in program.layers if layer.weights]
    parameters = sum(layer.parameter_bytes for layer in program.layers)
    return {
        "cycles": registers["CYCLES"],
        "bytes_read": read_bytes,
        "bytes_written": counts.beats_written * config.bus_bytes,
        "bursts": counts.read_bursts + counts.write_bursts,
        "stall_cycles": {cause: registers[f"{cause.upper()}_CYCLES"] for cause in STALL_CAUSES},
        "busy_cycles": registers["BUSY_CYCLES"],
        "bit_exact": exact,
        "wall_seconds": counts.wall_seconds,
        "energy_pj": energy.total_pj if energy else None,
        "energy_by": _causes(energy),
        "bytes_by": {
            "weights": sum(layer.entry.geometry.payload_bytes for layer in weights),
            "codebooks": sum(layer.codebook_bytes for layer in weights),
            "scales": parameters + sum(layer.zero_bytes for layer in weights),
            "activations": sum(layer.activation_bytes for layer in program.layers),
            "descriptors": PROGRAM_BYTES * len(program.layers),
            "padding": sum(layer.padding_bytes for layer in weights),
        },
        "layers": _layers(program, counts),
    }


def _causes(energy: Energy | None) -> dict[str, float] | None:
    if energy is None:
        return None
    return {name.removesuffix("_pj"): value for name, value in dataclasses.asdict(energy).items()}


def _layers(program: Program, counts: Counts) -> list[dict[str, Any]]:
    """One row per step. What follows the last vector of all is the last step's writeback."""
    rows: dict[Step, dict[str, Any]] = {}
    for layer, record in zip(program.layers, counts.records, strict=True):
        step = layer.step
        g = step.entry.geometry if step.entry else None
        row = rows.setdefault(
            step,
            {
                "name": step.name,
                "method": g.method if g else "none",
                "weights": g.weights if g else 0,
                "macs": 0,
                "m": step.target.positions,
                "cycles": 0,
                "bytes_read": 0,
                "busy_cycles": 0,
                "stall_cycles": dict.fromkeys(STALL_CAUSES, 0),
            },
        )
        row["macs"] += layer.macs
        row["cycles"] += record.cycles
        row["bytes_read"] += layer.read_bytes
        row["busy_cycles"] += record.busy_cycles
        for cause, cycles in record.stall_cycles.items():
            row["stall_cycles"][cause] += cycles
    last = rows[program.layers[-1].step]
    drain = counts.registers["CYCLES"] - sum(row["cycles"] for row in rows.values())
    last["cycles"] += drain
    last["stall_cycles"]["writeback"] += drain
    return list(rows.values())
