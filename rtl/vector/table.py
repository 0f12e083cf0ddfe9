"""Tables: a function by 257 entries, looked up in all lanes at once."""

from amaranth import Cat, Module, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl.vector.config import VectorConfig
from rtl.vector.layer import values_layout

__all__ = ["ENTRY", "TABLE_ENTRIES", "Table", "entries_layout", "places_layout"]

#: Of a table as it comes: one more than there are places, for the last difference.
TABLE_ENTRIES = 257
_PLACES = 256
_TABLES = 2

#: A number, which may have a sign or not, and how much greater the next one is.
ENTRY = data.StructLayout({"value": 16, "difference": signed(17)})


def entries_layout(config: VectorConfig) -> data.ArrayLayout:
    """What every lane has found."""
    return data.ArrayLayout(ENTRY, config.lanes)


def places_layout(config: VectorConfig) -> data.ArrayLayout:
    """What every lane asks for."""
    return data.ArrayLayout(8, config.lanes)


class Table(wiring.Component):
    """Two tables, one of which is in use, or is loaded, an entry per cycle.

    Parameters
    ----------
    config : VectorConfig

    Members
    -------
    number : In(1)
        Which one.
    entries : In(stream.Signature(values_layout(config)))
        Beats of a table to load: 257 numbers of 16 bits, then what fills the last beat.
    loaded : Out(1)
        The last beat is taken.
    enable : In(1)
        Look up.
    places : In(places_layout(config))
    found : Out(entries_layout(config))
        Entries of the places of the cycle before.
    """

    def __init__(self, config: VectorConfig) -> None:
        self._config = config
        super().__init__(
            {
                "number": In(1),
                "entries": In(stream.Signature(values_layout(config))),
                "loaded": Out(1),
                "enable": In(1),
                "places": In(places_layout(config)),
                "found": Out(entries_layout(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes = self._config.lanes
        lane = Signal(range(lanes))
        number = Signal(range(TABLE_ENTRIES))
        before = Signal(signed(16))
        value = Signal(signed(16))
        last = number == TABLE_ENTRIES - 1
        m.d.comb += [
            value.eq(self.entries.payload[lane]),
            self.entries.ready.eq(last | (lane == lanes - 1)),
            self.loaded.eq(self.entries.valid & last),
        ]
        with m.If(self.entries.valid):
            m.d.sync += [lane.eq(lane + 1), number.eq(number + 1), before.eq(value)]
            with m.If(last):
                m.d.sync += [lane.eq(0), number.eq(0)]

        # Every lane has a copy. Entry i - 1 is written when entry i has come.
        for i in range(lanes):
            m.submodules[f"memory_{i}"] = memory = Memory(
                shape=ENTRY, depth=_TABLES * _PLACES, init=[]
            )
            write, read = memory.write_port(), memory.read_port()
            m.d.comb += [
                write.en.eq(self.entries.valid & (number != 0)),
                write.addr.eq(Cat((number - 1)[:8], self.number)),
                write.data.value.eq(before),
                write.data.difference.eq(value - before),
                read.en.eq(self.enable),
                read.addr.eq(Cat(self.places[i], self.number)),
                self.found[i].eq(read.data),
            ]
        return m
