"""Registers: one table from which the hardware, its documentation and its host are made."""

from dataclasses import dataclass
from functools import reduce

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.bus.axi import LiteSignature
from rtl.descriptor import STALL_CAUSES

__all__ = [
    "ADDRESS_BITS",
    "IDENTITY",
    "REGISTERS",
    "VECTOR_REGISTERS",
    "Register",
    "RegisterFile",
    "register_map",
    "registers_of",
]

#: "SB", then the version of the register map.
IDENTITY = 0x53420001
ADDRESS_BITS = 8
_TIMEOUT_RESET = 1 << 20


@dataclass(frozen=True)
class Register:
    """A 32-bit register.

    Attributes
    ----------
    name : str
    meaning : str
    writable : bool
        The host may write it; otherwise writes are ignored.
    reset : int
        Value after reset.
    """

    name: str
    meaning: str
    writable: bool = False
    reset: int = 0


_CONTROL = (
    "Bit 0: write 1 to start the program; ignored while busy, and reads as 0. "
    "Bit 1: interrupt enable."
)
_STATUS = (
    "Bit 0: busy. Bit 1: done, cleared by the next start. Bits 15 to 8: how the run ended (see "
    "Status codes). Bits 31 to 16: number of the layer that failed first; 0 if none did."
)
_READS = {
    "descriptors": "descriptors",
    "parameters": "scalings and group scales",
    "codebooks": "codebooks and group zeros",
    "activations": "activations and residuals",
    "weights": "weight streams",
}

#: All registers, at successive multiples of four bytes.
REGISTERS = (
    Register("IDENTITY", "ASCII SB, then the version of this map.", reset=IDENTITY),
    Register("CONTROL", _CONTROL, writable=True),
    Register("STATUS", _STATUS),
    Register("LAYERS", "Number of descriptors, 0 to 65535.", writable=True),
    Register("PROGRAM_LOW", "Address of the first descriptor, bits 31 to 0.", writable=True),
    Register("PROGRAM_HIGH", "The same, bits 63 to 32. A multiple of 64 bytes.", writable=True),
    Register(
        "TIMEOUT",
        "Cycles without any progress after which a run is given up; 0 waits for ever.",
        writable=True,
        reset=_TIMEOUT_RESET,
    ),
    Register("LAYERS_DONE", "Layers whose outputs and record are handed to the memory."),
    Register("CYCLES", "Cycles from start to done. This and all below: 32 bits, cleared by start."),
    Register("BUSY_CYCLES", "Cycles in which a vector entered the array."),
    *(
        Register(f"{cause.upper()}_CYCLES", f"Cycles in which none did because of {cause}.")
        for cause in STALL_CAUSES
    ),
    *(
        Register(f"READ_{name.upper()}", f"Beats read: {meaning}.")
        for name, meaning in _READS.items()
    ),
    Register("READ_BURSTS", "Read bursts requested."),
    Register("WRITTEN", "Beats written."),
    Register("WRITE_BURSTS", "Write bursts requested."),
)

#: Behind them, those of an instance with a vector unit.
VECTOR_REGISTERS = (
    Register("VECTOR_CYCLES", "Cycles in which none did because of the vector unit."),
    *(
        Register(f"READ_{name.upper()}", f"Beats read by the vector unit: {meaning}.")
        for name, meaning in {
            "numbers": "tables and numbers of channels",
            "values": "operands",
            "other": "second operands",
        }.items()
    ),
)


def registers_of(vector: bool) -> tuple[Register, ...]:
    """Registers of an instance, with a vector unit or without."""
    return REGISTERS + VECTOR_REGISTERS * vector


def register_map(vector: bool = False) -> dict[str, int]:
    """Byte address of each register by name."""
    return {register.name: 4 * number for number, register in enumerate(registers_of(vector))}


class RegisterFile(wiring.Component):
    """Give a host access to the registers by AXI4-Lite.

    An access to an address without register reads 0 or does nothing, and gets a slave error. All
    accesses are of whole words: a write with ``wstrb`` other than 0b1111 gets a slave error.

    Parameters
    ----------
    vector : bool
        There is a vector unit.

    Members
    -------
    s_axi : In(LiteSignature)
    values : In(Signature({name: 32}))
        What the read-only registers show.
    written : Out(Signature({name: 32}))
        What the host wrote into the others.
    start : Out(1)
        Bit 0 of CONTROL is written with 1.
    """

    def __init__(self, vector: bool = False) -> None:
        self._registers = registers_of(vector)
        self._map = register_map(vector)
        shown = {r.name.lower(): Out(32) for r in self._registers if not r.writable}
        given = {r.name.lower(): Out(32, init=r.reset) for r in self._registers if r.writable}
        super().__init__(
            {
                "s_axi": In(LiteSignature(address_bits=ADDRESS_BITS)),
                "values": In(wiring.Signature(shown)),
                "written": Out(wiring.Signature(given)),
                "start": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        axi = self.s_axi
        addresses = self._map

        # Address and data of a write come in any order; it happens when both are there.
        write_at = Signal(ADDRESS_BITS)
        write_data, write_all = Signal(32), Signal()
        has_address, has_data = Signal(), Signal()
        writes = has_address & has_data & (~axi.bvalid | axi.bready)
        m.d.comb += [axi.awready.eq(~has_address), axi.wready.eq(~has_data)]
        with m.If(axi.awvalid & axi.awready):
            m.d.sync += [write_at.eq(axi.awaddr), has_address.eq(1)]
        with m.If(axi.wvalid & axi.wready):
            m.d.sync += [write_data.eq(axi.wdata), write_all.eq(axi.wstrb.all()), has_data.eq(1)]
        with m.If(axi.bready):
            m.d.sync += axi.bvalid.eq(0)
        with m.If(writes):
            m.d.sync += [
                has_address.eq(0),
                has_data.eq(0),
                axi.bvalid.eq(1),
                axi.bresp.eq(_response(self._known(write_at) & write_all)),
            ]
            with m.If(write_all), m.Switch(write_at):
                for register in self._registers:
                    if not register.writable:
                        continue
                    target = getattr(self.written, register.name.lower())
                    with m.Case(addresses[register.name]):
                        if register.name == "CONTROL":
                            m.d.comb += self.start.eq(write_data[0])
                            m.d.sync += target.eq(write_data & 0b10)
                        else:
                            m.d.sync += target.eq(write_data)

        reads = axi.arvalid & axi.arready
        m.d.comb += axi.arready.eq(~axi.rvalid | axi.rready)
        with m.If(axi.rready):
            m.d.sync += axi.rvalid.eq(0)
        with m.If(reads):
            m.d.sync += [
                axi.rvalid.eq(1),
                axi.rdata.eq(0),
                axi.rresp.eq(_response(self._known(axi.araddr))),
            ]
            with m.Switch(axi.araddr):
                for register in self._registers:
                    group = self.written if register.writable else self.values
                    with m.Case(addresses[register.name]):
                        m.d.sync += axi.rdata.eq(getattr(group, register.name.lower()))
        return m

    def _known(self, address: Value) -> Value:
        return reduce(lambda a, b: a | b, (address == at for at in self._map.values()))


def _response(fine: Value) -> Value:
    """OKAY, or a slave error."""
    return Mux(fine, 0, 2)
