"""AXI4 read channels and AXI4-Lite, as signatures whose ports vendor tools recognise."""

from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Burst", "LiteSignature", "ReadSignature"]


class Burst(enum.Enum, shape=2):  # type: ignore[call-arg]
    """Address mode of a burst; only INCR is used."""

    FIXED = 0
    INCR = 1
    WRAP = 2


class ReadSignature(wiring.Signature):
    """Read address (AR) and read data (R) channels, seen from the master.

    One ID is used, 0, so data return in the order of the requests.

    Parameters
    ----------
    address_bits : int
        Width of a byte address.
    data_bits : int
        Width of the data bus, a power of two.

    Members
    -------
    arid : Out(1)
        Always 0.
    arvalid : Out(1)
        A burst is requested. Held with all other ``ar`` signals until ``arready``.
    arready : In(1)
        The request is accepted in this cycle.
    araddr : Out(address_bits)
        Byte address of the first beat.
    arlen : Out(8)
        Beats of the burst, minus one.
    arsize : Out(3)
        log2 of the bytes of a beat; always the full bus.
    arburst : Out(2)
        Always INCR.
    arcache : Out(4)
        Always 0b0011: normal memory, bufferable, not cached.
    arprot : Out(3)
        Always 0: unprivileged, secure, data.
    rid : In(1)
        Ignored.
    rvalid : In(1)
        A beat is offered.
    rready : Out(1)
        The beat is taken.
    rdata : In(data_bits)
        The beat, the lowest address in the lowest byte.
    rresp : In(2)
        0 and 1 are fine; 2 (slave error) and 3 (decode error) are reported in the layer's status.
    rlast : In(1)
        Last beat of its burst.
    """

    def __init__(self, *, address_bits: int, data_bits: int) -> None:
        self.address_bits = address_bits
        self.data_bits = data_bits
        super().__init__(
            {
                "arid": Out(1),
                "arvalid": Out(1),
                "arready": In(1),
                "araddr": Out(address_bits),
                "arlen": Out(8),
                "arsize": Out(3),
                "arburst": Out(Burst),
                "arcache": Out(4),
                "arprot": Out(3),
                "rid": In(1),
                "rvalid": In(1),
                "rready": Out(1),
                "rdata": In(data_bits),
                "rresp": In(2),
                "rlast": In(1),
            }
        )


class LiteSignature(wiring.Signature):
    """AXI4-Lite with 32-bit data, seen from the master.

    Parameters
    ----------
    address_bits : int
        Width of a byte address.

    Members
    -------
    awvalid, awready, awaddr, awprot
        Write address.
    wvalid, wready, wdata, wstrb
        Write data; ``wstrb`` has a bit for each byte.
    bvalid, bready, bresp
        Write response.
    arvalid, arready, araddr, arprot
        Read address.
    rvalid, rready, rdata, rresp
        Read data.
    """

    def __init__(self, *, address_bits: int) -> None:
        self.address_bits = address_bits
        super().__init__(
            {
                "awvalid": Out(1),
                "awready": In(1),
                "awaddr": Out(address_bits),
                "awprot": Out(3),
                "wvalid": Out(1),
                "wready": In(1),
                "wdata": Out(32),
                "wstrb": Out(4),
                "bvalid": In(1),
                "bready": Out(1),
                "bresp": In(2),
                "arvalid": Out(1),
                "arready": In(1),
                "araddr": Out(address_bits),
                "arprot": Out(3),
                "rvalid": In(1),
                "rready": Out(1),
                "rdata": In(32),
                "rresp": In(2),
            }
        )
