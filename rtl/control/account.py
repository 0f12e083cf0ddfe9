"""Accounting: every cycle of a run belongs to one layer and to one cause."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.bus.queue import StreamQueue
from rtl.descriptor import STALL_CAUSES
from rtl.program import RECORD, RUN_CAUSES, VECTOR_RECORD
from rtl.transfer.load import SLOTS

__all__ = ["Account"]


class Account(wiring.Component):
    """Count cycles by cause, for each layer and for the whole run.

    Parameters
    ----------
    vector : bool
        There is a vector unit, and its cause.

    A cycle belongs to the layer whose vector enters the array in it, else to the next one to give
    a vector; what follows the last vector of the last layer belongs to no layer. In each cycle of a
    run exactly one of ``busy`` and the causes grows.

    Members
    -------
    start : In(1)
        Clear all counters; a run begins with the next cycle.
    running : In(1)
        Count this cycle.
    busy : In(1)
        A vector enters the array.
    memory, codebook, decoder, vector, compute : In(1)
        Why none does; the first one holds, writeback if none does.
    layer_ends : In(1)
        The vector is the last of its layer.
    cycles : Out(32)
    busy_cycles : Out(32)
    memory_cycles, ... : Out(32)
        Of the whole run.
    record : Out(stream.Signature(RECORD))
        One for each layer, the cycle after its last vector. Whoever takes them must never be more
        than the slots of the output buffer and one more behind.
    """

    def __init__(self, vector: bool = False) -> None:
        self._causes = RUN_CAUSES if vector else STALL_CAUSES
        self._layout = VECTOR_RECORD if vector else RECORD
        counters = ("cycles", "busy_cycles", *(f"{cause}_cycles" for cause in self._causes))
        super().__init__(
            {
                "start": In(1),
                "running": In(1),
                "busy": In(1),
                **{cause: In(1) for cause in self._causes[:-1]},
                "layer_ends": In(1),
                **{name: Out(32) for name in counters},
                "record": Out(stream.Signature(self._layout)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.records = records = StreamQueue(self._layout, SLOTS + 2)
        connect(m, records.get, flipped(self.record))
        grows = {"cycles": self.running, "busy_cycles": self.running & self.busy}
        free = self.running & ~self.busy
        for cause in self._causes[:-1]:
            grows[f"{cause}_cycles"] = free & getattr(self, cause)
            free = free & ~getattr(self, cause)
        grows[f"{self._causes[-1]}_cycles"] = free

        layer = Signal(32)
        fields = {"layer": layer}
        for name, now in grows.items():
            total = getattr(self, name)
            of_layer = Signal(32, name=f"layer_{name}")
            with_now = Signal(32, name=f"{name}_with_now")
            m.d.comb += with_now.eq(of_layer + now)
            m.d.sync += [
                total.eq(Mux(self.start, 0, total + now)),
                of_layer.eq(Mux(self.start | self.layer_ends, 0, with_now)),
            ]
            fields[name] = with_now
        m.d.sync += layer.eq(Mux(self.start, 0, layer + self.layer_ends))
        m.d.comb += [
            records.put.payload.eq(
                Cat(fields.get(name, Const(0, field.width)) for name, field in self._layout)
            ),
            records.put.valid.eq(self.layer_ends),
        ]
        return m
