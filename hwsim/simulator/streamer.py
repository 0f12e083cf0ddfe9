"""What one simulation is asked to do, and what it answers."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hwsim.defaults import DEFAULT_MEMORY
from hwsim.simulator.traffic import Traffic

__all__ = ["BusCounts", "Job", "LayerResult", "Result"]


@dataclass(frozen=True)
class Job:
    """One run: an image in memory and the layers to stream from it.

    Attributes
    ----------
    image : Path
        File whose bytes are the memory; addresses are file offsets.
    descriptors : list of int
        Packed layer descriptors (``rtl.DESCRIPTOR``).
    memory : str
        Memory model in text form, see :func:`hwsim.memory.parse_memory`.
    traffic : Traffic
    idle_limit_cycles : int
        A run without any event for this long has failed.
    """

    image: Path
    descriptors: Sequence[int]
    memory: str = DEFAULT_MEMORY
    traffic: Traffic = field(default_factory=Traffic)
    idle_limit_cycles: int = 10_000

    def to_json(self, bus_bits: int) -> str:
        """Text for the simulator process."""
        return json.dumps(
            {
                "image": str(self.image.resolve()),
                "descriptors": list(self.descriptors),
                "memory": self.memory,
                "traffic": dataclasses.asdict(self.traffic),
                "idle_limit_cycles": self.idle_limit_cycles,
                "bus_bits": bus_bits,
            }
        )


@dataclass(frozen=True)
class BusCounts:
    """What the memory saw, counted outside the design.

    ``first_beat_cycle`` and ``last_beat_cycle`` are the cycles of the first and the last data
    beat; ``read_bytes`` counts whole beats.
    """

    read_bytes: int
    beats: int
    bursts: int
    first_beat_cycle: int
    last_beat_cycle: int

    @property
    def utilisation(self) -> float:
        """Share of cycles with a data beat, from the first beat to the last."""
        return self.beats / max(1, self.last_beat_cycle - self.first_beat_cycle + 1)


@dataclass(frozen=True)
class LayerResult:
    """One layer: its report, and every lane of the weight beats that left.

    ``report`` has the fields of ``rtl.REPORT``, the status by name.
    """

    report: dict[str, Any]
    weights: NDArray[np.int8]


@dataclass(frozen=True)
class Result:
    """Outcome of a run.

    ``lanes`` weights leave per beat. ``cycles`` are counted outside the design, from the cycle
    after the first descriptor is accepted to the last weight beat.
    """

    layers: list[LayerResult]
    lanes: int
    bus: BusCounts
    cycles: int
    wall_seconds: float

    @classmethod
    def load(
        cls, folder: Path, reports: Sequence[dict[str, Any]], lanes: int, wall_seconds: float
    ) -> Self:
        """Read what the testbench wrote into ``folder``; weights stay on disk until used."""
        facts = json.loads((folder / "result.json").read_text())
        data = np.fromfile(folder / "weights.bin", np.int8)
        layers, at = [], 0
        beats = iter(facts["weight_beats"])
        for report in reports:
            ran = report["status"] in ("OK", "READ_ERROR")
            end = at + (next(beats) * lanes if ran else 0)
            layers.append(LayerResult(report, data[at:end]))
            at = end
        return cls(layers, lanes, BusCounts(**facts["bus"]), facts["cycles"], wall_seconds)
