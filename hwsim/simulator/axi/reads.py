"""AXI4 read slaves: a memory image behind a timing model, and a check of the protocol."""

import random
from collections import deque
from typing import Any

from hwsim.memory import IdealMemory, MemoryModel
from hwsim.simulator.axi.address import AddressChannel, Burst
from hwsim.simulator.pins import reader, writer
from hwsim.simulator.playback import Player
from hwsim.simulator.traffic import Traffic

__all__ = ["AxiReadSlave", "PlayedReadSlave"]

_GRANULE_BYTES = 64


class AxiReadSlave:
    """Answer bursts from an image, at the times a memory model gives.

    Call :meth:`step` once in each cycle, at the rising edge: it samples what the design
    drove in this cycle and drives what the design sees in the next.

    Parameters
    ----------
    dut : simulation handle
        Has the ports ``m_axi_ar*`` and ``m_axi_r*``.
    image : bytes-like
        The memory from address 0. Bursts that reach behind its last granule get a decode error.
    memory : MemoryModel
    traffic : Traffic
        Idle probabilities and error addresses.
    bus_bits : int

    Attributes
    ----------
    first_beat_cycle, last_beat_cycle : int
        Of the data beats; -1 before the first.
    """

    def __init__(
        self, dut: Any, image: Any, memory: MemoryModel, traffic: Traffic, bus_bits: int
    ) -> None:
        end = -(-len(image) // _GRANULE_BYTES) * _GRANULE_BYTES
        self._image = image
        self._memory = memory
        self._r_idle = traffic.r_idle
        self._chance = random.Random(traffic.seed)
        self._quiet = not traffic.ar_idle
        self._address = AddressChannel(dut, "ar", end, traffic, self._chance, bus_bits)
        self._beat_bytes = bus_bits // 8
        self._rready = reader(dut.m_axi_rready)
        self._set_rvalid = writer(dut.m_axi_rvalid)
        self._set_rdata = writer(dut.m_axi_rdata)
        # rresp and rlast change once per burst at most.
        self._set_rend = (writer(dut.m_axi_rresp), writer(dut.m_axi_rlast))
        self._rend = (0, 0)
        self._valid = False  # what this slave drives
        self._bursts: deque[Burst] = deque()
        self._beats = 0
        self.first_beat_cycle = -1
        self.last_beat_cycle = -1
        for write in (self._set_rvalid, self._set_rdata, *self._set_rend):
            write(0)

    @property
    def beats(self) -> int:
        """Data beats delivered."""
        return self._beats

    @property
    def bursts(self) -> int:
        """Bursts accepted."""
        return self._address.bursts

    def step(self, cycle: int) -> bool:
        """Take part in one cycle; true if a beat or a burst was transferred."""
        moved = False
        was_valid = self._valid
        if was_valid and self._rready():
            moved = True
            self._finish_beat(cycle)
        moved |= self._request(cycle)
        self._drive(cycle + 1, was_valid)
        return moved

    def _request(self, cycle: int) -> bool:
        """Take part in the address channel; true if a burst was accepted."""
        burst = self._address.step(cycle)
        if burst is not None:
            self._accept(cycle, burst)
        return burst is not None

    @property
    def quiet(self) -> bool:
        """Nothing is asked for, under way or left to chance: cycles may pass without a step."""
        return self._quiet and not (self._bursts or self._valid or self._address.valid())

    def _accept(self, cycle: int, burst: Burst) -> None:
        self._memory.request(cycle, burst.address, burst.beats_left, self._beat_bytes)
        self._bursts.append(burst)

    def _finish_beat(self, cycle: int) -> None:
        burst = self._bursts[0]
        burst.address += self._beat_bytes
        burst.beats_left -= 1
        if burst.beats_left == 0:
            self._bursts.popleft()
        self._memory.pop()
        self._valid = False
        self._beats += 1
        if self.first_beat_cycle < 0:
            self.first_beat_cycle = cycle
        self.last_beat_cycle = cycle

    def _drive(self, next_cycle: int, was_valid: bool) -> None:
        if self._valid:  # offered and not taken: hold
            return
        # Both slaves have yet to see this cycle; what comes in it cannot be due in the next one.
        self._memory.advance(next_cycle - 1)
        due = self._memory.ready_cycle()
        if (
            due is None
            or due > next_cycle
            or (self._r_idle and self._chance.random() < self._r_idle)
        ):
            if was_valid:
                self._set_rvalid(0)
            return
        burst = self._bursts[0]
        beat = self._image[burst.address : burst.address + self._beat_bytes]
        self._set_rdata(int.from_bytes(beat, "little"))
        rend = (burst.response, int(burst.beats_left == 1))
        if rend != self._rend:
            self._rend = rend
            for write, value in zip(self._set_rend, rend, strict=True):
                write(value)
        self._valid = True
        if not was_valid:
            self._set_rvalid(1)


class PlayedReadSlave(AxiReadSlave):
    """An :class:`AxiReadSlave` whose beats come from a player: it looks after addresses alone.

    The same beats in the same cycles. ``image`` must be the file that the player reads, mapped;
    ``traffic`` must not delay beats, and the memory's latency not be below the player's.
    """

    def __init__(
        self, dut: Any, image: Any, memory: IdealMemory, traffic: Traffic, bus_bits: int
    ) -> None:
        super().__init__(dut, image, memory, traffic, bus_bits)
        self._schedule = memory.schedule
        self._player = Player(dut, memory.unit)
        self._count = reader(dut.play_count)

    def step(self, cycle: int) -> bool:
        """Take part in one cycle; true if a burst was accepted."""
        return self._request(cycle)

    @property
    def beats(self) -> int:
        """Data beats that the player has given since reset."""
        return self._count()

    def _accept(self, cycle: int, burst: Burst) -> None:
        first, step = self._schedule(cycle, burst.beats_left, self._beat_bytes)
        self._player.burst(burst.address, burst.beats_left, burst.response, first, step)
