"""AXI4 read slave for cocotb: a memory image behind a timing model, and a protocol check."""

import random
from collections import deque
from dataclasses import dataclass
from typing import Any

from hwsim.memory import IdealMemory, MemoryModel
from hwsim.pins import reader, writer
from hwsim.playback import Player
from hwsim.traffic import Traffic

__all__ = ["AxiReadSlave", "AxiWriteSlave", "LiteMaster", "PlayedReadSlave", "ProtocolError"]

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
    bursts : int
        Bursts accepted.
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
        self._beats = 0
        self.bursts = 0
        self.first_beat_cycle = -1
        self.last_beat_cycle = -1
        for write in (self._set_arready, self._set_rvalid, self._set_rdata, *self._set_rend):
            write(0)

    @property
    def beats(self) -> int:
        """Data beats delivered."""
        return self._beats

    def step(self, cycle: int) -> bool:
        """Take part in one cycle; true if a beat or a burst was transferred."""
        moved = False
        was_valid = self._valid
        if was_valid and self._rready():
            moved = True
            self._finish_beat(cycle)
        moved |= self._addresses(cycle)
        self._drive(cycle + 1, was_valid)
        return moved

    def _addresses(self, cycle: int) -> bool:
        """Take part in the address channel; true if a burst was accepted."""
        moved = False
        if self._arvalid():
            moved = self._request(cycle)
        elif self._waiting is not None:
            raise ProtocolError(f"cycle {cycle}: arvalid must be held until arready")
        ready = not self._traffic.ar_idle or self._random.random() >= self._traffic.ar_idle
        if ready != self._ready:
            self._ready = ready
            self._set_arready(ready)
        return moved

    @property
    def quiet(self) -> bool:
        """Nothing is asked for, under way or left to chance: cycles may pass without a step."""
        return not (self._bursts or self._valid or self._traffic.ar_idle or self._arvalid())

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
        self._accept(cycle, _Burst(address, beats, response))
        self.bursts += 1
        return True

    def _accept(self, cycle: int, burst: _Burst) -> None:
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
        traffic = self._traffic
        if self._valid:  # offered and not taken: hold
            return
        # Both slaves have yet to see this cycle; what comes in it cannot be due in the next one.
        self._memory.advance(next_cycle - 1)
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
        return self._addresses(cycle)

    @property
    def beats(self) -> int:
        """Data beats that the player has given since reset."""
        return self._count()

    def _accept(self, cycle: int, burst: _Burst) -> None:
        first, step = self._schedule(cycle, burst.beats_left, self._beat_bytes)
        self._player.burst(burst.address, burst.beats_left, burst.response, first, step)


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
    beats, bursts : int
        Data beats and bursts taken.
    """

    def __init__(
        self, dut: Any, image: Any, memory: MemoryModel, traffic: Traffic, bus_bits: int
    ) -> None:
        self._image = image
        self._memory = memory
        self._traffic = traffic
        self._beat_bytes = bus_bits // 8
        self._random = random.Random(traffic.seed + 3)
        self._errors = frozenset(traffic.error_granules)
        self._awvalid = reader(dut.m_axi_awvalid)
        self._aw = [
            reader(getattr(dut, f"m_axi_aw{field}")) for field in ("addr", "len", "size", "burst")
        ]
        self._wvalid = reader(dut.m_axi_wvalid)
        self._w = [reader(getattr(dut, f"m_axi_w{field}")) for field in ("data", "last")]
        self._strobe = reader(dut.m_axi_wstrb)
        self._bready = reader(dut.m_axi_bready)
        self._set_awready = writer(dut.m_axi_awready)
        self._set_wready = writer(dut.m_axi_wready)
        self._set_bvalid, self._set_bresp = writer(dut.m_axi_bvalid), writer(dut.m_axi_bresp)
        self._awready = self._wready = self._bvalid = False
        self._waiting_aw: list[int] | None = None
        self._waiting_w: list[int] | None = None
        self._bursts: deque[_Burst] = deque()
        self._responses: deque[tuple[int, int]] = deque()  # ticket of the last beat, response
        self.beats = 0
        self.bursts = 0
        for write in (self._set_awready, self._set_wready, self._set_bvalid, self._set_bresp):
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
        if self._awvalid():
            moved |= self._address(cycle)
        elif self._waiting_aw is not None:
            raise ProtocolError(f"cycle {cycle}: awvalid must be held until awready")
        if self._wvalid():
            moved |= self._data(cycle)
        elif self._waiting_w is not None:
            raise ProtocolError(f"cycle {cycle}: wvalid must be held until wready")
        self._drive(cycle + 1)
        return moved

    @property
    def quiet(self) -> bool:
        """As that of :class:`AxiReadSlave`."""
        busy = self._bursts or self._responses or self._bvalid
        chance = self._traffic.ar_idle or self._traffic.r_idle
        return not (busy or chance or self._awvalid() or self._wvalid())

    def _address(self, cycle: int) -> bool:
        fields = [read() for read in self._aw]
        if self._waiting_aw not in (None, fields):
            raise ProtocolError(
                f"cycle {cycle}: AW must be stable until awready, not {self._waiting_aw} "
                f"then {fields}"
            )
        self._waiting_aw = fields
        if not self._awready:
            return False
        self._waiting_aw = None
        address, length, size, burst = fields
        nbytes = (length + 1) * self._beat_bytes
        for holds, rule in (
            (1 << size == self._beat_bytes, f"awsize must be the full bus, not {1 << size} bytes"),
            (burst == _INCR, f"awburst must be INCR, not {burst}"),
            (address % self._beat_bytes == 0, f"awaddr must be aligned, not {address:#x}"),
            (
                address // _PAGE_BYTES == (address + nbytes - 1) // _PAGE_BYTES,
                f"burst must not cross 4 KiB, not {address:#x} with {nbytes} bytes",
            ),
        ):
            if not holds:
                raise ProtocolError(f"cycle {cycle}: {rule}")
        response = _OKAY
        if address + nbytes > len(self._image):
            response = _DECERR
        elif self._errors and not self._errors.isdisjoint(
            range(address // _GRANULE_BYTES, -(-(address + nbytes) // _GRANULE_BYTES))
        ):
            response = _SLVERR
        self._bursts.append(_Burst(address, length + 1, response))
        self.bursts += 1
        return True

    def _data(self, cycle: int) -> bool:
        data, last = (read() for read in self._w)
        if self._waiting_w not in (None, [data, last]):
            raise ProtocolError(f"cycle {cycle}: W must be stable until wready")
        self._waiting_w = [data, last]
        if not self._wready:
            return False
        self._waiting_w = None
        if not self._bursts:
            raise ProtocolError(f"cycle {cycle}: W must not come before its address")
        if self._strobe() != (1 << self._beat_bytes) - 1:
            raise ProtocolError(f"cycle {cycle}: wstrb must be all ones")
        burst = self._bursts[0]
        burst.beats_left -= 1
        if last != (burst.beats_left == 0):
            raise ProtocolError(f"cycle {cycle}: wlast must end the burst, and only end it")
        if burst.response == _OKAY:
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
        traffic = self._traffic
        ready = not traffic.ar_idle or self._random.random() >= traffic.ar_idle
        if ready != self._awready:
            self._awready = ready
            self._set_awready(ready)
        # Data wait for a cycle in which the address has come: simple, and never slower than AW.
        ready = not traffic.r_idle or self._random.random() >= traffic.r_idle
        ready = ready and (bool(self._bursts) or self._awready)
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


class LiteMaster:
    """A host's accesses by AXI4-Lite, one at a time.

    Parameters
    ----------
    dut : simulation handle
        Has the ports ``s_axi_*``.
    tick : callable
        Awaitable that passes one cycle.
    """

    def __init__(self, dut: Any, tick: Any) -> None:
        self._tick = tick
        self._set = {
            name: writer(getattr(dut, f"s_axi_{name}"))
            for name in (
                "awvalid", "awaddr", "awprot", "wvalid", "wdata", "wstrb", "bready",
                "arvalid", "araddr", "arprot", "rready",
            )
        }  # fmt: skip
        self._get = {
            name: reader(getattr(dut, f"s_axi_{name}"))
            for name in ("awready", "wready", "bvalid", "bresp", "arready", "rvalid", "rdata",
                         "rresp")
        }  # fmt: skip
        for write in self._set.values():
            write(0)

    async def write(self, address: int, value: int) -> int:
        """Write a register; return the response."""
        put, get = self._set, self._get
        put["awaddr"](address)
        put["wdata"](value)
        put["wstrb"](0b1111)
        put["bready"](1)
        waiting = {"awready": "awvalid", "wready": "wvalid"}
        for valid in waiting.values():
            put[valid](1)
        while waiting:
            await self._tick()
            for ready, valid in list(waiting.items()):
                if get[ready]():
                    put[valid](0)
                    del waiting[ready]
        while not get["bvalid"]():
            await self._tick()
        response = get["bresp"]()
        put["bready"](0)
        return response

    async def read(self, address: int) -> tuple[int, int]:
        """Read a register; return its value and the response."""
        put, get = self._set, self._get
        put["araddr"](address)
        put["arvalid"](1)
        put["rready"](1)
        while True:
            await self._tick()
            if get["arready"]():
                break
        put["arvalid"](0)
        while not get["rvalid"]():
            await self._tick()
        found = get["rdata"](), get["rresp"]()
        put["rready"](0)
        return found
