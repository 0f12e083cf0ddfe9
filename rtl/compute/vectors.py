"""Activation buffer, and the assembly of vectors from pieces of its words."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl.compute.accumulate import tag_layout
from rtl.compute.config import ArrayConfig
from rtl.compute.walk import piece_layout

__all__ = ["VectorReader", "input_write_layout", "vector_layout"]


def vector_layout(config: ArrayConfig) -> data.StructLayout:
    """One vector of activations, and where its sums belong."""
    return data.StructLayout(
        {
            "activations": data.ArrayLayout(signed(8), config.columns),
            "new_tile": 1,  # first one of its tile
            "layer_ends": 1,  # last one of its layer
            "tag": tag_layout(config),
        }
    )


def input_write_layout(config: ArrayConfig) -> data.StructLayout:
    """Write port of the activation buffer."""
    return data.StructLayout(
        {"enable": 1, "word": range(config.input_words), "data": 8 * config.columns}
    )


class VectorReader(wiring.Component):
    """Hold activations; read pieces, move each to its lanes, and give complete vectors.

    A piece per cycle; a vector leaves three cycles after its last piece came.

    Parameters
    ----------
    config : ArrayConfig

    Members
    -------
    write : In(input_write_layout(config))
        A word to store. Not to be written while the walk reads it.
    pieces : In(stream.Signature(piece_layout(config)))
    released : Out(1)
        The last piece of a layer is read: its words may be overwritten.
    vectors : Out(stream.Signature(vector_layout(config)))
    """

    def __init__(self, config: ArrayConfig) -> None:
        self._config = config
        super().__init__(
            {
                "write": In(input_write_layout(config)),
                "pieces": In(stream.Signature(piece_layout(config))),
                "released": Out(1),
                "vectors": Out(stream.Signature(vector_layout(config))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        config = self._config
        columns = config.columns
        m = Module()
        m.submodules.memory = memory = Memory(shape=8 * columns, depth=config.input_words, init=[])
        write = memory.write_port()
        read = memory.read_port(domain="sync")

        # Cycle 1: the memory is read. Cycle 2: moved and merged. Cycle 3: offered.
        piece = Signal(piece_layout(config))
        piece_there = Signal()
        merged = Signal(data.ArrayLayout(8, columns))
        advance = Signal()
        m.d.comb += [
            advance.eq(~self.vectors.valid | self.vectors.ready),
            self.pieces.ready.eq(advance),
            write.en.eq(self.write.enable),
            write.addr.eq(self.write.word),
            write.data.eq(self.write.data),
            read.en.eq(advance),
            read.addr.eq(self.pieces.p.word),
            self.released.eq(self.pieces.valid & advance & self.pieces.p.layer_ends),
        ]
        turn = Signal(range(columns))
        m.d.comb += turn.eq(piece.from_byte - piece.lane)
        word = read.data
        for level in range((columns - 1).bit_length()):
            turned = Signal(8 * columns, name=f"turned_{level}")
            by = 8 << level
            m.d.comb += turned.eq(Mux(turn[level], Cat(word[by:], word[:by]), word))
            word = turned
        vector = Signal(data.ArrayLayout(8, columns))
        for lane in range(columns):
            here = lane < piece.lane + piece.count
            if lane < columns - 1:
                here &= lane >= piece.lane
            kept = Mux(piece.begins, 0, merged[lane])
            m.d.comb += vector[lane].eq(Mux(here, word.word_select(lane, 8), kept))

        with m.If(advance):
            m.d.sync += [
                piece.eq(self.pieces.payload),
                piece_there.eq(self.pieces.valid),
                self.vectors.valid.eq(piece_there & piece.ends),
                self.vectors.p.new_tile.eq(piece.new_tile),
                self.vectors.p.layer_ends.eq(piece.layer_ends),
                self.vectors.p.tag.eq(piece.tag),
            ]
            with m.If(piece_there):
                m.d.sync += [
                    merged.eq(vector),
                    self.vectors.p.activations.eq(vector.as_value()),
                ]
        return m
