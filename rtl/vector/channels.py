"""Numbers of channels: gains, shifts and biases of a norm, angles, or sums of columns."""

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl.vector.config import VectorConfig
from rtl.vector.layer import values_layout

__all__ = ["CHANNEL", "CHANNEL_BYTES", "Channels", "channels_layout"]

#: Of a channel as it comes: bias (4), multiplier (2), shift (1), one unused. Of a rotation, the
#: bias is the sine, with the sign that it has for this channel, the multiplier the cosine.
CHANNEL_BYTES = 8

CHANNEL = data.StructLayout({"bias": signed(32), "multiplier": signed(16), "shift": 6})


def channels_layout(config: VectorConfig) -> data.ArrayLayout:
    """Numbers of the channels of a beat."""
    return data.ArrayLayout(CHANNEL, config.lanes)


class Channels(wiring.Component):
    """Keep numbers of every channel of a row.

    Parameters
    ----------
    config : VectorConfig

    Members
    -------
    beats : In(range(config.row_beats + 1))
        Of a row.
    numbers : In(stream.Signature(values_layout(config)))
        Beats of channels to load, channel by channel, whole beats of values: 4 for each of these.
    loaded : Out(1)
        The last beat is taken.
    keep : In(1)
        Take ``sums`` as the biases of ``kept``, and nothing else.
    kept : In(range(config.row_beats))
    sums : In(data.ArrayLayout(signed(32), config.lanes))
    enable : In(1)
        Look up.
    at : In(range(config.row_beats))
    found : Out(channels_layout(config))
        Numbers of the beat of the cycle before.
    """

    def __init__(self, config: VectorConfig) -> None:
        self._config = config
        super().__init__(
            {
                "beats": In(range(config.row_beats + 1)),
                "numbers": In(stream.Signature(values_layout(config))),
                "loaded": Out(1),
                "keep": In(1),
                "kept": In(range(config.row_beats)),
                "sums": In(data.ArrayLayout(signed(32), config.lanes)),
                "enable": In(1),
                "at": In(range(config.row_beats)),
                "found": Out(channels_layout(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes = self._config.lanes
        parts = 8 * CHANNEL_BYTES // 16  # beats for the channels of one
        each = lanes // parts
        m.submodules.memory = memory = Memory(
            shape=channels_layout(self._config), depth=self._config.row_beats, init=[]
        )
        write, read = memory.write_port(granularity=each), memory.read_port()
        beat = Signal(range(self._config.row_beats))
        part = Signal(range(parts))
        row_ends = (beat == self.beats - 1) & (part == parts - 1)
        m.d.comb += [
            self.numbers.ready.eq(1),
            self.loaded.eq(self.numbers.valid & row_ends),
            write.addr.eq(Mux(self.keep, self.kept, beat)),
            read.en.eq(self.enable),
            read.addr.eq(self.at),
            self.found.eq(read.data),
        ]
        with m.If(self.numbers.valid):
            m.d.sync += part.eq(part + 1)
            with m.If(part == parts - 1):
                m.d.sync += beat.eq(Mux(row_ends, 0, beat + 1))
        bits = self.numbers.payload.as_value()
        for lane in range(lanes):
            slot = bits.word_select(lane % each, 8 * CHANNEL_BYTES)
            channel = write.data[lane]
            m.d.comb += [
                channel.bias.eq(Mux(self.keep, self.sums[lane], slot[:32].as_signed())),
                channel.multiplier.eq(slot[32:48].as_signed()),
                channel.shift.eq(slot[48:54]),
            ]
        with m.If(self.keep):
            m.d.comb += write.en.eq(-1)
        with m.Elif(self.numbers.valid):
            m.d.comb += write.en.bit_select(part, 1).eq(1)
        return m
