"""Every counter of a run, predicted."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from hwsim.cycles.machine import CHANNELS, Machine, Ways
from hwsim.memory import Energy, MemoryModel
from hwsim.program import Program
from hwsim.program.records import LayerRecord
from rtl import RUN_CAUSES, STALL_CAUSES, AcceleratorConfig

__all__ = ["Prediction", "predict", "predict_descriptors"]


@dataclass(frozen=True)
class Prediction:
    """What a run counts.

    Attributes
    ----------
    registers : dict of str to int
        Those that count, by the names of the register map.
    records : list of LayerRecord
        One for each descriptor.
    skipped_cycles : int
        Cycles of stretches that had happened before: the others were stepped.
    energy : Energy or None
        Of the memory during the run, if it knows any.
    wall_seconds : float
    """

    registers: dict[str, int]
    records: list[LayerRecord]
    skipped_cycles: int
    energy: Energy | None
    wall_seconds: float

    @property
    def beats_read(self) -> int:
        """Data beats of all channels."""
        return sum(self.registers[f"READ_{name}"] for name in CHANNELS)

    @property
    def read_bursts(self) -> int:
        """As the memory counts them."""
        return self.registers["READ_BURSTS"]

    @property
    def beats_written(self) -> int:
        """As the memory counts them."""
        return self.registers["WRITTEN"]

    @property
    def write_bursts(self) -> int:
        """As the memory counts them."""
        return self.registers["WRITE_BURSTS"]


def predict(
    config: AcceleratorConfig,
    program: Program,
    memory: MemoryModel,
    *,
    holds_book: bool = False,
    progress: Callable[[int], None] | None = None,
    ways: Ways | None = None,
) -> Prediction:
    """Predict what a run of the RTL would count, without data and without RTL.

    The run is that of :func:`hwsim.simulator.accelerator.run_program`.

    With an ideal memory all is equal to the RTL, in every counter of every layer. Any other memory
    is asked burst by burst.

    Parameters
    ----------
    config : AcceleratorConfig
    program : Program
    memory : MemoryModel
        One that has not been used; it is used up.
    holds_book : bool
        Whether a run before has loaded a codebook, without reset since.
    progress : callable, optional
        Called now and then with the number of data beats so far.
    ways : Ways, optional
        For tests: every way gives the same numbers.

    Raises
    ------
    ConfigError
        If a count of a layer does not fit the model.
    SimulationError
        If there is no C compiler, or the program stands still.
    """
    return predict_descriptors(
        config, program.address, program.descriptors, memory,
        holds_book=holds_book, progress=progress, ways=ways,
    )  # fmt: skip


def predict_descriptors(
    config: AcceleratorConfig,
    address: int,
    descriptors: bytes,
    memory: MemoryModel,
    *,
    holds_book: bool = False,
    progress: Callable[[int], None] | None = None,
    ways: Ways | None = None,
) -> Prediction:
    """As :func:`predict`, of descriptors that lie at an address: no weights need exist.

    The descriptors are not checked as the hardware checks them.
    """
    start = time.monotonic()
    machine = Machine(config, address, descriptors, memory, ways or Ways(), holds_book)
    spent = memory.energy(machine.cycle)
    machine.run(progress)
    energy = memory.energy(machine.cycle)
    counters = machine.counters
    *stalls, busy = (int(kind) for kind in counters["kinds"])
    registers = {
        "LAYERS_DONE": int(counters["layers_done"]),
        "CYCLES": busy + sum(stalls),
        "BUSY_CYCLES": busy,
    }
    registers |= {f"{c.upper()}_CYCLES": n for c, n in zip(STALL_CAUSES, stalls, strict=True)}
    registers |= {f"READ_{c}": int(n) for c, n in zip(CHANNELS, counters["beats"], strict=True)}
    registers |= {
        name.upper(): int(counters[name]) for name in ("read_bursts", "written", "write_bursts")
    }
    records = [
        LayerRecord(sum(kinds), kinds[-1], _stalls(kinds[:-1]))
        for kinds in machine.records.tolist()
    ]
    return Prediction(
        registers,
        records,
        machine.skipped_cycles,
        energy - spent if energy and spent else None,
        time.monotonic() - start,
    )


def _stalls(cycles: list[int]) -> dict[str, int]:
    """By cause; of the array's layers, none is the vector unit's."""
    found = dict(zip(STALL_CAUSES, cycles, strict=True))
    return {cause: found.get(cause, 0) for cause in RUN_CAUSES}
