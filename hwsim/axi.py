"""AXI4 read slave for cocotb: a memory image behind a timing model, and a protocol check."""

import random
from collections import deque
from dataclasses import dataclass
from typing import Any

from hwsim.job import Traffic
from hwsim.memory import MemoryModel

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
        self._beat_format = f"0{bus_bits}b"
        self._random = random.Random(traffic.seed)
        self._errors = frozenset(traffic.error_granules)
        self._arvalid, self._rready = dut.m_axi_arvalid, dut.m_axi_rready
        self._ar = [
            getattr(dut, f"m_axi_ar{field}") for field in ("addr", "len", "size", "burst")
        ]
        self._arready, self._rvalid = dut.m_axi_arready, dut.m_axi_rvalid
        self._rdata, self._rresp, self._rlast = dut.m_axi_rdata, dut.m_axi_rresp, dut.m_axi_rlast
        self._ready = False  # what this slave drives
        self._valid = False
        self._waiting: list[int] | None = None  # a request that was not accepted yet
        self._bursts: deque[_Burst] = deque()
        self.beats = 0
        self.bursts = 0
        self.first_beat_cycle = -1
        self.last_beat_cycle = -1
        for port in (self._arready, self._rvalid, self._rdata, self._rresp, self._rlast):
            port.value = 0

    def step(self, cycle: int) -> bool:
        """Take part in one cycle; true if a beat or a burst was transferred."""
        moved = False
        if self._valid and self._rready.value == 1:
            moved = True
            self._finish_beat(cycle)
        if self._arvalid.value == 1:
            moved |= self._request(cycle)
        elif self._waiting is not None:
            raise ProtocolError(f"cycle {cycle}: arvalid must be held until arready")
        self._drive(cycle + 1)
        return moved

    def _request(self, cycle: int) -> bool:
        fields = [int(port.value) for port in self._ar]
        if self._waiting not in (None, fields):
            raise ProtocolError(
                f"cycle {cycle}: AR must be stable until arready, not {self._waiting} "
                f"then {fields}"
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

    def _drive(self, next_cycle: int) -> None:
        traffic = self._traffic
        ready = not traffic.ar_idle or self._random.random() >= traffic.ar_idle
        if ready != self._ready:
            self._arready.value = self._ready = ready
        if self._valid:  # offered and not taken: hold
            return
        due = self._memory.ready_cycle()
        if due is None or due > next_cycle or (
            traffic.r_idle and self._random.random() < traffic.r_idle
        ):
            self._rvalid.value = 0
            return
        burst = self._bursts[0]
        beat = self._image[burst.address : burst.address + self._beat_bytes]
        self._valid = True
        self._rvalid.value = 1
        self._rdata.value = int.from_bytes(beat, "little")
        self._rresp.value = burst.response
        self._rlast.value = burst.beats_left == 1
