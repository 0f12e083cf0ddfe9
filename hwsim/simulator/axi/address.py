"""An address channel of AXI4: its rules, and which bursts get an error."""

import random
from dataclasses import dataclass
from typing import Any

from hwsim.simulator.axi.rules import ProtocolError
from hwsim.simulator.pins import reader, writer
from hwsim.simulator.traffic import Traffic

__all__ = ["OKAY", "AddressChannel", "Burst"]

_INCR = 1
OKAY, _SLVERR, _DECERR = 0, 2, 3
_PAGE_BYTES = 4096
_GRANULE_BYTES = 64


@dataclass
class Burst:
    """What is left of a burst.

    Attributes
    ----------
    address : int
        Of its next beat.
    beats_left : int
    response : int
        Of all its beats.
    """

    address: int
    beats_left: int
    response: int


class AddressChannel:
    """Take bursts from AR or AW.

    Parameters
    ----------
    dut : simulation handle
        Has the ports ``m_axi_ar*`` or ``m_axi_aw*``.
    name : str
        "ar" or "aw".
    end : int
        Bursts that reach behind this address get a decode error.
    traffic : Traffic
        Probability of a cycle that is not ready, and granules with errors.
    chance : random.Random
        Decides on such cycles.
    bus_bits : int

    Attributes
    ----------
    valid : callable
        Whether the design offers a burst in this cycle.
    ready : bool
        What this channel drives.
    bursts : int
        Bursts taken.
    """

    def __init__(
        self, dut: Any, name: str, end: int, traffic: Traffic, chance: random.Random, bus_bits: int
    ) -> None:
        self._name = name
        self._end = end
        self._idle = traffic.ar_idle
        self._errors = frozenset(traffic.error_granules)
        self._chance = chance
        self._beat_bytes = bus_bits // 8
        self._fields = [
            reader(getattr(dut, f"m_axi_{name}{field}"))
            for field in ("addr", "len", "size", "burst")
        ]
        self._set_ready = writer(getattr(dut, f"m_axi_{name}ready"))
        self._waiting: list[int] | None = None  # a request that was not accepted yet
        self.valid = reader(getattr(dut, f"m_axi_{name}valid"))
        self.ready = False
        self.bursts = 0
        self._set_ready(0)

    def step(self, cycle: int) -> Burst | None:
        """Take part in one cycle; the burst that was taken in it, if any.

        Raises
        ------
        ProtocolError
            If the design withdraws or changes a request, or asks for a burst that is no aligned
            INCR of full beats inside 4 KiB.
        """
        burst = None
        if self.valid():
            burst = self._take(cycle)
        elif self._waiting is not None:
            raise ProtocolError(f"cycle {cycle}: {self._name}valid must be held until ready")
        ready = not self._idle or self._chance.random() >= self._idle
        if ready != self.ready:
            self.ready = ready
            self._set_ready(ready)
        return burst

    def _take(self, cycle: int) -> Burst | None:
        fields = [read() for read in self._fields]
        if self._waiting not in (None, fields):
            raise ProtocolError(
                f"cycle {cycle}: {self._name.upper()} must be stable until ready, "
                f"not {self._waiting} then {fields}"
            )
        self._waiting = fields
        if not self.ready:
            return None
        self._waiting = None
        address, length, size, kind = fields
        end = address + (length + 1) * self._beat_bytes
        name = self._name
        for holds, rule in (
            (
                1 << size == self._beat_bytes,
                f"{name}size must be the full bus, not {1 << size} bytes",
            ),
            (kind == _INCR, f"{name}burst must be INCR, not {kind}"),
            (address % self._beat_bytes == 0, f"{name}addr must be aligned, not {address:#x}"),
            (
                address // _PAGE_BYTES == (end - 1) // _PAGE_BYTES,
                f"burst must not cross 4 KiB, not {address:#x} with {end - address} bytes",
            ),
        ):
            if not holds:
                raise ProtocolError(f"cycle {cycle}: {rule}")
        self.bursts += 1
        return Burst(address, length + 1, self._response(address, end))

    def _response(self, address: int, end: int) -> int:
        if end > self._end:
            return _DECERR
        granules = range(address // _GRANULE_BYTES, -(-end // _GRANULE_BYTES))
        return OKAY if self._errors.isdisjoint(granules) else _SLVERR
