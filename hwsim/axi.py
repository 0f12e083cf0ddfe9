"""AXI4 read slave for cocotb: a memory image behind a timing model, and a protocol check."""

import random
from collections import deque
from dataclasses import dataclass
from typing import Any

from hwsim.memory import MemoryModel
from hwsim.pins import reader, writer
from hwsim.traffic import Traffic

__all__ = ["AxiReadSlave", "ProtocolError"]

_INCR = 1
_OKAY, _SLVERR, _DECERR = 0, 2, 3
_PAGE_BYTES = 4096
_GRANULE_BYTES = 64


class ProtocolError(AssertionError):
    """The design broke a rule of AXI4 or of ready/valid streams."""


@dataclass
class _Burst:
    address: int
    beats_left: int
    response: int


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
    beats, bursts : int
        Data beats delivered, bursts accepted.
    first_beat_cycle, last_beat_cycle : int
        Of the data beats; -1 before the first.
    """

    def __init__(
        self, dut: Any, image: Any, memory: MemoryModel, traffic: Traffic, bus_bits: int
    ) -> None:
        self._image = image
        self._image_end = -(-len(image) // _GRANULE_BYTES) * _GRANULE_BYTES
        self._memory = memory
        self._traffic = traffic
        self._beat_bytes = bus_bits // 8
        self._random = random.Random(traffic.seed)
        self._errors = frozenset(traffic.error_granules)
        self._arvalid = reader(dut.m_axi_arvalid)
        self._ar = [
            reader(getattr(dut, f"m_axi_ar{field}")) for field in ("addr", "len", "size", "burst")
        ]
        self._rready = reader(dut.m_axi_rready)
        self._set_arready = writer(dut.m_axi_arready)
        self._set_rvalid = writer(dut.m_axi_rvalid)
        self._set_rdata = writer(dut.m_axi_rdata)
        # rresp and rlast change once per burst at most.
        self._set_rend = (writer(dut.m_axi_rresp), writer(dut.m_axi_rlast))
        self._rend = (0, 0)
        self._ready = False  # what this slave drives
        self._valid = False
        self._waiting: list[int] | None = None  # a request that was not accepted yet
        self._bursts: deque[_Burst] = deque()
        self.beats = 0
        self.bursts = 0
        self.first_beat_cycle = -1
        self.last_beat_cycle = -1
        for write in (self._set_arready, self._set_rvalid, self._set_rdata, *self._set_rend):
            write(0)

    def step(self, cycle: int) -> bool:
        """Take part in one cycle; true if a beat or a burst was transferred."""
        moved = False
        was_valid = self._valid
        if was_valid and self._rready():
            moved = True
            self._finish_beat(cycle)
        if self._arvalid():
            moved |= self._request(cycle)
        elif self._waiting is not None:
            raise ProtocolError(f"cycle {cycle}: arvalid must be held until arready")
        self._drive(cycle + 1, was_valid)
        return moved

    def _request(self, cycle: int) -> bool:
        fields = [read() for read in self._ar]
        if self._waiting not in (None, fields):
            raise ProtocolError(
                f"cycle {cycle}: AR must be stable until arready, not {self._waiting} then {fields}"
            )
        self._waiting = fields
        if not self._ready:
            return False
        self._waiting = None
        address, length, size, burst = fields
        beats = length + 1
        nbytes = beats * self._beat_bytes
        for holds, rule in (
            (1 << size == self._beat_bytes, f"arsize must be the full bus, not {1 << size} bytes"),
            (burst == _INCR, f"arburst must be INCR, not {burst}"),
            (address % self._beat_bytes == 0, f"araddr must be aligned, not {address:#x}"),
            (
                address // _PAGE_BYTES == (address + nbytes - 1) // _PAGE_BYTES,
                f"burst must not cross 4 KiB, not {address:#x} with {nbytes} bytes",
            ),
        ):
            if not holds:
                raise ProtocolError(f"cycle {cycle}: {rule}")
        response = _OKAY
        if address + nbytes > self._image_end:
            response = _DECERR
        elif self._errors and not self._errors.isdisjoint(
            range(address // _GRANULE_BYTES, -(-(address + nbytes) // _GRANULE_BYTES))
        ):
            response = _SLVERR
        self._memory.request(cycle, address, beats, self._beat_bytes)
        self._bursts.append(_Burst(address, beats, response))
        self.bursts += 1
        return True

    def _finish_beat(self, cycle: int) -> None:
        burst = self._bursts[0]
        burst.address += self._beat_bytes
        burst.beats_left -= 1
        if burst.beats_left == 0:
            self._bursts.popleft()
        self._memory.pop()
        self._valid = False
        self.beats += 1
        if self.first_beat_cycle < 0:
            self.first_beat_cycle = cycle
        self.last_beat_cycle = cycle

    def _drive(self, next_cycle: int, was_valid: bool) -> None:
        traffic = self._traffic
        ready = not traffic.ar_idle or self._random.random() >= traffic.ar_idle
        if ready != self._ready:
            self._ready = ready
            self._set_arready(ready)
        if self._valid:  # offered and not taken: hold
            return
        due = self._memory.ready_cycle()
        if (
            due is None
            or due > next_cycle
            or (traffic.r_idle and self._random.random() < traffic.r_idle)
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
