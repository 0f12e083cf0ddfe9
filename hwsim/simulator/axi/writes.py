"""AXI4 write slave: a memory image behind a timing model, and a check of the protocol."""

import random
from collections import deque
from typing import Any

from hwsim.memory import MemoryModel
from hwsim.simulator.axi.address import OKAY, AddressChannel, Burst
from hwsim.simulator.axi.rules import ProtocolError
from hwsim.simulator.pins import reader, writer
from hwsim.simulator.traffic import Traffic

__all__ = ["AxiWriteSlave"]


class AxiWriteSlave:
    """Take bursts into an image, at the times a memory model gives, and check the protocol.

    Call :meth:`step` as that of :class:`AxiReadSlave`, in the same cycles.

    Parameters
    ----------
    dut : simulation handle
        Has the ports ``m_axi_aw*``, ``m_axi_w*`` and ``m_axi_b*``.
    image : bytearray or mmap
        Bursts that reach behind its end get a decode error and change nothing.
    memory : MemoryModel
    traffic : Traffic
    bus_bits : int

    Attributes
    ----------
    beats : int
        Data beats taken.
    """

    def __init__(
        self, dut: Any, image: Any, memory: MemoryModel, traffic: Traffic, bus_bits: int
    ) -> None:
        self._image = image
        self._memory = memory
        self._w_idle = traffic.r_idle
        self._quiet = not (traffic.ar_idle or traffic.r_idle)
        self._beat_bytes = bus_bits // 8
        self._chance = random.Random(traffic.seed + 3)
        self._address = AddressChannel(dut, "aw", len(image), traffic, self._chance, bus_bits)
        self._wvalid = reader(dut.m_axi_wvalid)
        self._w = [reader(getattr(dut, f"m_axi_w{field}")) for field in ("data", "last")]
        self._strobe = reader(dut.m_axi_wstrb)
        self._bready = reader(dut.m_axi_bready)
        self._set_wready = writer(dut.m_axi_wready)
        self._set_bvalid, self._set_bresp = writer(dut.m_axi_bvalid), writer(dut.m_axi_bresp)
        self._wready = self._bvalid = False
        self._waiting: list[int] | None = None  # a beat that was not accepted yet
        self._bursts: deque[Burst] = deque()
        self._responses: deque[tuple[int, int]] = deque()  # ticket of the last beat, response
        self.beats = 0
        for write in (self._set_wready, self._set_bvalid, self._set_bresp):
            write(0)

    def step(self, cycle: int) -> bool:
        """Take part in one cycle; true if anything was transferred."""
        moved = False
        if self._bvalid and self._bready():
            moved = True
            self._responses.popleft()
            self._bvalid = False
            self._set_bvalid(0)
        # An address comes before its data, or with the first of them.
        burst = self._address.step(cycle)
        if burst is not None:
            moved = True
            self._bursts.append(burst)
        if self._wvalid():
            moved |= self._data(cycle)
        elif self._waiting is not None:
            raise ProtocolError(f"cycle {cycle}: wvalid must be held until ready")
        self._drive(cycle + 1)
        return moved

    @property
    def bursts(self) -> int:
        """Bursts taken."""
        return self._address.bursts

    @property
    def quiet(self) -> bool:
        """As that of :class:`AxiReadSlave`."""
        busy = self._bursts or self._responses or self._bvalid
        return self._quiet and not (busy or self._address.valid() or self._wvalid())

    def _data(self, cycle: int) -> bool:
        data, last = (read() for read in self._w)
        if self._waiting not in (None, [data, last]):
            raise ProtocolError(f"cycle {cycle}: W must be stable until ready")
        self._waiting = [data, last]
        if not self._wready:
            return False
        self._waiting = None
        if not self._bursts:
            raise ProtocolError(f"cycle {cycle}: W must not come before its address")
        if self._strobe() != (1 << self._beat_bytes) - 1:
            raise ProtocolError(f"cycle {cycle}: wstrb must be all ones")
        burst = self._bursts[0]
        burst.beats_left -= 1
        if last != (burst.beats_left == 0):
            raise ProtocolError(f"cycle {cycle}: wlast must end the burst, and only end it")
        if burst.response == OKAY:
            self._image[burst.address : burst.address + self._beat_bytes] = data.to_bytes(
                self._beat_bytes, "little"
            )
        burst.address += self._beat_bytes
        ticket = self._memory.write(cycle, burst.address - self._beat_bytes, self._beat_bytes)
        self.beats += 1
        if last:
            self._bursts.popleft()
            self._responses.append((ticket, burst.response))
        return True

    def _drive(self, next_cycle: int) -> None:
        # Data wait for a cycle in which the address has come: simple, and never slower than AW.
        ready = not self._w_idle or self._chance.random() >= self._w_idle
        ready = ready and (bool(self._bursts) or self._address.ready)
        if ready != self._wready:
            self._wready = ready
            self._set_wready(ready)
        if self._bvalid or not self._responses:
            return
        ticket, response = self._responses[0]
        self._memory.advance(next_cycle - 1)
        due = self._memory.written_cycle(ticket)
        if due is not None and due <= next_cycle:
            self._bvalid = True
            self._set_bvalid(1)
            self._set_bresp(response)
