"""A program in the compiled model, ready to run."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwsim.cycles.ask import Answers
from hwsim.cycles.header import structures
from hwsim.cycles.layers import kinds_of_layers, layers_of_program
from hwsim.cycles.library import library
from hwsim.memory import IdealMemory, MemoryModel
from rtl import STALL_CAUSES, AcceleratorConfig
from rtl.program import PROGRAM_BYTES
from rtl.transfer.load import SLOTS
from vq.container import GRANULE_BYTES, SimulationError

__all__ = ["CHANNELS", "Machine", "Ways"]

#: Channels of the read DMA, as the registers call them.
CHANNELS = ("DESCRIPTORS", "PARAMETERS", "CODEBOOKS", "ACTIVATIONS", "WEIGHTS")

#: Cycle of the testbench in which a run begins: reset is over, and the host has written five
#: registers, three cycles each. A memory that refreshes knows the difference.
_FIRST_CYCLE = 15
#: Cycles between two words of progress: a tenth of a second, also where a memory is asked.
_STEP_CYCLES, _ASKED_STEP_CYCLES = 1 << 23, 1 << 19
_REQUEST = 1  # state of the fetcher in a run's first cycle
_STANDS = 2
_NO_RESPONSE = -1


@dataclass(frozen=True)
class Ways:
    """Ways to be fast. None changes what is counted; tests turn them off.

    Attributes
    ----------
    leaps : bool
        Repeat at once a cycle that changes nothing but the position of the walk.
    stretch_cycles : int
        Remember what happens in stretches of about so many cycles, and replay one that comes again.
        0 for none; with a memory that is asked there is none.
    ask : bool
        Ask an ideal memory burst by burst, as any other.
    """

    leaps: bool = True
    stretch_cycles: int = 128
    ask: bool = False


class Machine:
    """The state of a run, in the layout of ``machine.h``.

    Parameters
    ----------
    config : AcceleratorConfig
    address : int
        Of the first descriptor.
    descriptors : bytes
        256 bytes for each layer. They must be such as the hardware accepts.
    memory : MemoryModel
        One that has not been used.
    ways : Ways
    holds_book : bool
        Whether the codebook RAM has been loaded since reset: one of its books is then not free.
    """

    def __init__(
        self,
        config: AcceleratorConfig,
        address: int,
        descriptors: bytes,
        memory: MemoryModel,
        ways: Ways,
        holds_book: bool = False,
    ) -> None:
        self._library = library()
        layout = structures()["Machine"]
        assert self._library.signbook_size() == layout.itemsize
        self._data = np.zeros(1, layout)
        self._answers: Answers | None = None
        count = len(descriptors) // PROGRAM_BYTES
        self._layers = layers_of_program(descriptors)
        self._kinds = kinds_of_layers(self._layers, config.burst_bytes // GRANULE_BYTES)
        self._records = np.zeros((count, len(STALL_CAUSES) + 1), np.int64)
        m = self._data[0]
        m["layers"] = self._layers.ctypes.data
        m["kinds_of_layers"] = self._kinds.ctypes.data
        m["records"] = self._records.ctypes.data
        m["layer_count"] = count
        m["program"] = address // GRANULE_BYTES
        m["cycle"] = _FIRST_CYCLE
        m["leaps"] = ways.leaps
        m["stretch"] = ways.stretch_cycles
        self._configure(config)
        self._reset(holds_book)
        self._connect(config, memory, ways.ask)

    def _configure(self, config: AcceleratorConfig) -> None:
        streamer = config.streamer
        fifos = [config.burst_bytes] * 3 + [config.fifo_bytes] * 2
        settings = {
            "bus_bits": config.bus_bits,
            "rows": config.rows,
            "columns": config.columns,
            "burst_granules": config.burst_bytes // GRANULE_BYTES,
            "outstanding_bursts": config.outstanding_bursts,
            "layers_in_flight": config.layers_in_flight,
            "int8_only": config.int8_only,
            "beat_shift": streamer.granule_beats.bit_length() - 1,
            "rounds": config.rows // config.scale_lanes,
            "descriptor_beats": PROGRAM_BYTES // config.bus_bytes,
            "slot_beats": 8 * config.rows // config.bus_bytes,
            "record_beats": GRANULE_BYTES // config.bus_bytes,
            "word_beats": config.rows // config.bus_bytes,
            "beat_words": config.bus_bytes // config.rows,
            "granule_words": GRANULE_BYTES // config.rows,
            "beat_inputs": config.bus_bits // config.rows,
            "zero_steps": max(config.rows // config.bus_bytes, config.bus_bytes // config.rows),
            "direct_fifo_beats": streamer.direct_fifo_beats,
            "fifo_beats": [size // config.bus_bytes for size in fifos],
        }
        for name, value in settings.items():
            self._data["config"][name] = value

    def _reset(self, holds_book: bool) -> None:
        """Registers whose value is not 0 in the first cycle of a run."""
        s = self._data[0]["state"]
        s["fetcher"]["state"] = _REQUEST
        s["channels"]["free_beats"] = self._data[0]["config"]["fifo_beats"]
        s["load_request"]["input_slots"] = s["load_request"]["output_slots"] = SLOTS
        s["router"]["fresh"] = s["sequencer"]["fresh"] = s["walk"]["fresh"] = 1
        s["loader"]["writable_books"] = 1 if holds_book else 2
        s["loader"]["any_used"] = holds_book
        for wanted, queues in {
            "weighted": ("weight_layers", "stream_regions", "router_layers", "sequencer_layers"),
            "load": ("codebook_regions", "loader_layers"),
        }.items():
            first = self._layers[0]
            for queue in queues:
                s[queue]["head"] = 0 if first[wanted] else first[f"next_{wanted}"]

    def _connect(self, config: AcceleratorConfig, memory: MemoryModel, ask: bool) -> None:
        m = self._data[0]
        m["memory"]["response_due"] = _NO_RESPONSE
        if isinstance(memory, IdealMemory) and not ask:
            m["memory"]["unit"], byte_time = memory.bytes_per_cycle.as_integer_ratio()
            m["memory"]["beat_time"] = config.bus_bytes * byte_time
            m["memory"]["latency"] = memory.latency_cycles
            return
        self._answers = Answers(memory, m["memory"])
        m["memory"]["is_asked"] = 1
        m["stretch"] = 0
        for name, entry in self._answers.entries.items():
            m["asked"][name] = entry

    def run(self, progress: Callable[[int], None] | None = None) -> None:
        """Run to the end; ``progress`` gets the data beats so far, from time to time.

        Raises
        ------
        SimulationError
            If nothing moves any more: the descriptors are not such as the hardware accepts.
        Exception
            What the memory raised.
        """
        at = ctypes.c_void_p(self._data.ctypes.data)
        step = _STEP_CYCLES if self._answers is None else _ASKED_STEP_CYCLES
        try:
            while not self._data["done"][0]:
                self._library.signbook_run(at, step)
                if self._data["memory"]["failed"][0]:
                    assert self._answers is not None
                    raise self._answers.error or SimulationError(
                        "memory must have room for what is under way, but it has none left"
                    )
                if progress is not None:
                    progress(int(self._data["counters"]["beats"].sum()))
        finally:
            self._library.signbook_forget(at)
        if self._data["done"][0] == _STANDS:
            raise SimulationError(
                "cycle model: something must move, but all waits for ever from cycle "
                f"{self._data['cycle'][0]} on"
            )

    @property
    def counters(self) -> np.void:
        """``Counters`` of ``machine.h``."""
        counters: np.void = self._data[0]["counters"]
        return counters

    @property
    def cycle(self) -> int:
        """Cycle of the testbench: that in which the run begins, or has ended."""
        return int(self._data[0]["cycle"])

    @property
    def records(self) -> NDArray[np.int64]:
        """[layers, causes and busy] cycles of every layer."""
        return self._records

    @property
    def skipped_cycles(self) -> int:
        """Cycles of stretches that had happened before."""
        return int(self._data["skipped"][0])
