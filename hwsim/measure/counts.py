"""What a run has counted, by whichever engine, as a run of the document."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from hwsim.measure.document import Bytes, Energies, Layer, Run, Stalls
from hwsim.measure.logic import logic_of
from hwsim.memory import Energy
from hwsim.program import Program, ProgramLayer, Step
from hwsim.program.records import LayerRecord
from rtl import RUN_CAUSES, AcceleratorConfig
from rtl.program import PROGRAM_BYTES
from vq.container import SimulationError

__all__ = ["Counts", "run_of"]


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


def run_of(program: Program, counts: Counts, config: AcceleratorConfig, exact: bool | None) -> Run:
    """One run of the document.

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
        If other bytes were read than the program's, of any kind.
    """
    registers, energy = counts.registers, counts.energy
    # Without a vector unit there is no register for its cause.
    stalls = {cause: registers.get(f"{cause.upper()}_CYCLES", 0) for cause in RUN_CAUSES}
    weights = [layer.weights for layer in program.layers if layer.weights]
    parameters = sum(layer.parameter_bytes for layer in program.layers)
    activations = sum(layer.activation_bytes for layer in program.layers)
    descriptors = PROGRAM_BYTES * len(program.layers)
    streams = sum(layer.entry.stream.nbytes for layer in weights)
    for channel, expected in {
        "descriptors": descriptors,
        "parameters": parameters,
        "codebooks": sum(layer.read_bytes for layer in weights) - streams,
        "activations": activations,
        "weights": streams,
    }.items():
        read = registers[f"READ_{channel.upper()}"] * config.bus_bytes
        if read != expected:
            raise SimulationError(f"bytes of {channel} read must be {expected}, not {read}")
    busy = registers["BUSY_CYCLES"]
    read, written = (
        beats * config.bus_bytes for beats in (counts.beats_read, counts.beats_written)
    )
    logic = logic_of(program, config, busy_cycles=busy, bytes_read=read, bytes_written=written)
    return Run(
        cycles=registers["CYCLES"],
        bytes_read=read,
        bytes_written=written,
        bursts=counts.read_bursts + counts.write_bursts,
        stall_cycles=Stalls(**stalls),
        busy_cycles=busy,
        bit_exact=exact,
        wall_seconds=counts.wall_seconds,
        energy_pj=energy.total_pj if energy else None,
        energy_by=_energies(energy) if energy else None,
        logic_pj=logic.total_pj,
        logic_by=logic,
        bytes_by=Bytes(
            weights=sum(layer.entry.geometry.payload_bytes for layer in weights),
            codebooks=sum(layer.codebook_bytes for layer in weights),
            scales=parameters + sum(layer.zero_bytes for layer in weights),
            activations=activations,
            descriptors=descriptors,
            padding=sum(layer.padding_bytes for layer in weights),
        ),
        layers=_layers(program, counts),
    )


def _energies(energy: Energy) -> Energies:
    causes = dataclasses.asdict(energy)
    return Energies(**{name.removesuffix("_pj"): value for name, value in causes.items()})


def _layers(program: Program, counts: Counts) -> list[Layer]:
    """One layer per step. What follows the last vector of all is the last step's writeback."""
    strips: dict[Step, list[tuple[ProgramLayer, LayerRecord]]] = {}
    for layer, record in zip(program.layers, counts.records, strict=True):
        strips.setdefault(layer.step, []).append((layer, record))
    drain = counts.registers["CYCLES"] - sum(record.cycles for record in counts.records)
    last = program.layers[-1].step
    return [_layer(step, of, drain if step is last else 0) for step, of in strips.items()]


def _layer(step: Step, strips: Sequence[tuple[ProgramLayer, LayerRecord]], drain: int) -> Layer:
    g = step.entry.geometry if step.entry else None
    stalls = {cause: sum(r.stall_cycles[cause] for _, r in strips) for cause in RUN_CAUSES}
    stalls["writeback"] += drain
    return Layer(
        name=step.name,
        method=g.method if g else "none",
        weights=g.weights if g else 0,
        macs=sum(layer.macs for layer, _ in strips),
        m=step.target.positions,
        cycles=sum(record.cycles for _, record in strips) + drain,
        bytes_read=sum(layer.read_bytes for layer, _ in strips),
        busy_cycles=sum(record.busy_cycles for _, record in strips),
        stall_cycles=Stalls(**stalls),
    )
