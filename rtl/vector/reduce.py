"""Reducer: greatest value, sum and sum of squares of each row, as it comes."""

from collections.abc import Callable, Sequence

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.vector.config import VectorConfig
from rtl.vector.layer import values_layout

__all__ = ["Reducer", "reduced_layout", "reducible_layout", "tree"]

_MOST_BITS = 17
_SQUARE_BITS = 31


def reducible_layout(config: VectorConfig) -> data.StructLayout:
    """A beat of a row on its way to the row buffer."""
    return data.StructLayout(
        {
            "valid": 1,
            "values": values_layout(config),
            "live": config.lanes,  # lanes that count
            "first": 1,  # of its row
            "last": 1,
            "magnitudes": 1,  # of which the greatest is asked for
        }
    )


def reduced_layout(config: VectorConfig) -> data.StructLayout:
    """What a row comes to."""
    return data.StructLayout(
        {
            "most": signed(_MOST_BITS),
            "total": signed(config.total_bits),
            "squares": config.squares_bits,
        }
    )


def tree(parts: Sequence[Value], join: Callable[[Value, Value], Value]) -> Value:
    """Join neighbours until one is left."""
    while len(parts) > 1:
        parts = [join(a, b) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def _square(value: Value) -> Value:
    """Each product of two bits once, for half the adders of a multiplication."""
    rows = []
    for i in range(len(value)):
        above = len(value) - i - 1
        others = [value[i + 1 :] & value[i].replicate(above)] if above else []
        rows.append(Cat(value[i], Const(0, 1), *others) << 2 * i)
    return tree(rows, lambda a, b: a + b)


class Reducer(wiring.Component):
    """Reduce rows, a beat per cycle; results four cycles after the last beat.

    Parameters
    ----------
    config : VectorConfig

    Members
    -------
    beat : In(reducible_layout(config))
        The last beat of a row only while not ``outstanding``. Every row has a lane that is live.
    rows : Out(stream.Signature(reduced_layout(config)))
    outstanding : Out(1)
        A row has come whose result is not taken yet.
    """

    def __init__(self, config: VectorConfig) -> None:
        self._config = config
        super().__init__(
            {
                "beat": In(reducible_layout(config)),
                "rows": Out(stream.Signature(reduced_layout(config))),
                "outstanding": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes, beat = self._config.lanes, self.beat
        stage = data.StructLayout({"valid": 1, "first": 1, "last": 1})
        squared, joined = Signal(stage), Signal(stage)
        for after, before in ((squared, beat), (joined, squared)):
            m.d.sync += [
                after.valid.eq(before.valid),
                after.first.eq(before.first),
                after.last.eq(before.last),
            ]

        # Cycle 1: squares. Cycle 2: over the lanes. Cycle 3: over the beats.
        candidates = Signal(data.ArrayLayout(signed(_MOST_BITS), lanes))
        terms = Signal(data.ArrayLayout(signed(16), lanes))
        squares = Signal(data.ArrayLayout(_SQUARE_BITS, lanes))
        for lane in range(lanes):
            value = Signal(signed(16), name=f"value_{lane}")
            m.d.comb += value.eq(Mux(beat.live[lane], beat.values[lane], 0))
            magnitude = Signal(16, name=f"magnitude_{lane}")
            m.d.comb += magnitude.eq(Mux(value < 0, -value, value))
            asked = Mux(beat.magnitudes, magnitude, value)
            m.d.sync += [
                terms[lane].eq(value),
                squares[lane].eq(_square(magnitude)),
                candidates[lane].eq(Mux(beat.live[lane], asked, -(1 << _MOST_BITS - 1))),
            ]
        of_beat = Signal(reduced_layout(self._config))
        found = Signal(reduced_layout(self._config))
        ended = Signal()
        m.d.sync += [
            ended.eq(joined.valid & joined.last),
            of_beat.most.eq(tree(list(candidates), lambda a, b: Mux(a > b, a, b))),
            of_beat.total.eq(tree(list(terms), lambda a, b: a + b)),
            of_beat.squares.eq(tree(list(squares), lambda a, b: a + b)),
        ]
        with m.If(joined.valid):
            first = joined.first
            m.d.sync += [
                found.most.eq(Mux(first | (of_beat.most > found.most), of_beat.most, found.most)),
                found.total.eq(Mux(first, 0, found.total) + of_beat.total),
                found.squares.eq(Mux(first, 0, found.squares) + of_beat.squares),
            ]
        taken = self.rows.valid & self.rows.ready
        with m.If(taken):
            m.d.sync += self.outstanding.eq(0)
        with m.Elif(beat.valid & beat.last):
            m.d.sync += self.outstanding.eq(1)
        with m.If(ended):  # the next row may begin in this cycle
            m.d.sync += [self.rows.payload.eq(found), self.rows.valid.eq(1)]
        with m.Elif(taken):
            m.d.sync += self.rows.valid.eq(0)
        return m
