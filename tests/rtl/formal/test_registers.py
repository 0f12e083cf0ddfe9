"""Register file: AXI4-Lite responses are held, and there is one for each access."""

from amaranth.hdl import Assert, Assume, Signal

from rtl.control.registers import RegisterFile
from tests.rtl.formal.prove import Spec, prove


def test_responses() -> None:
    spec = Spec(file := RegisterFile())
    m, axi = spec.m, file.s_axi
    for channel, payload in (("aw", axi.awaddr), ("w", axi.wdata), ("ar", axi.araddr)):
        spec.holds(
            getattr(axi, f"{channel}valid"), getattr(axi, f"{channel}ready"), payload, Assume
        )
    spec.holds(axi.bvalid, axi.bready, axi.bresp)
    spec.holds(axi.rvalid, axi.rready, axi.rdata)
    spec.holds(axi.rvalid, axi.rready, axi.rresp)

    # Accesses accepted, less those answered.
    addresses, data, reads = Signal(2), Signal(2), Signal(2)
    answered = axi.bvalid & axi.bready
    m.d.sync += [
        addresses.eq(addresses + (axi.awvalid & axi.awready) - answered),
        data.eq(data + (axi.wvalid & axi.wready) - answered),
        reads.eq(reads + (axi.arvalid & axi.arready) - (axi.rvalid & axi.rready)),
    ]
    m.d.comb += [
        Assert(~axi.bvalid | ((addresses != 0) & (data != 0))),
        Assert(axi.rvalid == (reads != 0)),
        Assert(reads <= 1),
        Assert(addresses == ~axi.awready + axi.bvalid),
        Assert(data == ~axi.wready + axi.bvalid),
    ]
    prove(spec, depth=3)
