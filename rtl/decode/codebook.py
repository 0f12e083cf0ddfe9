"""Codebook, in RAM or ROM: every lane looks its codeword up in the same cycle, no conflicts."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory, WritePort
from amaranth.lib.wiring import In, Out

from rtl.config import StreamerConfig
from rtl.decode.planes import index_lanes

__all__ = ["CodebookRAM", "CodebookROM", "row_layout"]


def row_layout(config: StreamerConfig) -> data.StructLayout:
    """One write to the codebook: a codeword, or as much of it as a beat holds."""
    return data.StructLayout(
        {
            "enable": 1,
            "book": 1,
            "row": range(1 << config.index_bits_max),
            "log2_d": 3,
            "half": 1,  # which half of a codeword that is longer than a beat
            "data": 8 * min(config.d_max, config.bus_bytes),
        }
    )


def codebook_signature(config: StreamerConfig) -> wiring.Signature:
    """Ports of a :class:`CodebookRAM`, which documents them."""
    return wiring.Signature(
        {
            "write": In(row_layout(config)),
            "enable": In(1),
            "lanes": In(index_lanes(config)),
            "log2_d": In(3),
            "book": In(1),
            "values": Out(8 * config.bus_bits),
        }
    )


class CodebookRAM(wiring.Component):
    """``W / d_min`` banks of ``d_min`` bytes, two books each.

    Bank j stores bytes ``d_min j mod d`` and following of every codeword, so whatever d is, bank j
    delivers lanes ``d_min j`` and following. Each bank has its own address, hence no conflicts.

    Reading takes three cycles of ``enable``: address register, RAM, output register.

    Parameters
    ----------
    config : StreamerConfig

    Members
    -------
    write : In(row_layout(config))
        Stores a codeword. The book must not be the one being read.
    enable : In(1)
        Advance the read pipeline.
    lanes : In(index_lanes(config))
        Indices.
    log2_d : In(3)
        Sub-vector length that goes with ``lanes``.
    book : In(1)
        Book that goes with ``lanes``.
    values : Out(8 * W)
        Bytes of the W codeword elements, lane 0 in the low bits.
    """

    def __init__(self, config: StreamerConfig) -> None:
        self._config = config
        super().__init__(codebook_signature(config))

    def elaborate(self, platform: object) -> Module:
        config = self._config
        m = Module()
        log2_d_min = config.d_min.bit_length() - 1
        log2_d_max = config.d_max.bit_length() - 1

        # Bank j needs the index of lane j d_min / d: one doubling per factor of two.
        spread = [self.lanes[j] for j in range(config.banks)]
        for log2_d in range(log2_d_min + 1, log2_d_max + 1):
            wider = self.log2_d >= log2_d
            spread = [Mux(wider, spread[j >> 1], spread[j]) for j in range(config.banks)]

        for j in range(config.banks):
            m.submodules[f"bank_{j}"] = memory = Memory(
                shape=8 * config.d_min, depth=2 << config.index_bits_max, init=[]
            )
            read = memory.read_port()
            address = Signal(config.index_bits_max + 1, name=f"address_{j}")
            with m.If(self.enable):
                m.d.sync += [
                    address.eq(Cat(spread[j], self.book)),
                    self.values.word_select(j, 8 * config.d_min).eq(read.data),
                ]
            m.d.comb += [read.addr.eq(address), read.en.eq(self.enable)]
            self._write_bank(m, memory.write_port(), j)
        return m

    def _write_bank(self, m: Module, port: WritePort, j: int) -> None:
        """Bank j takes its share of the codeword; it depends on d only."""
        config, write = self._config, self.write
        m.d.comb += port.addr.eq(Cat(write.row, write.book))
        with m.Switch(write.log2_d):
            for log2_d in range(config.d_min.bit_length() - 1, config.d_max.bit_length()):
                d = 1 << log2_d
                share = (config.d_min * j) % d  # first byte of the codeword in this bank
                half, at = divmod(share, config.bus_bytes)
                with m.Case(log2_d):
                    m.d.comb += [
                        port.data.eq(write.data[8 * at : 8 * (at + config.d_min)]),
                        port.en.eq(
                            write.enable & (write.half == half if d > config.bus_bytes else 1)
                        ),
                    ]


class CodebookROM(wiring.Component):
    """A fixed codebook: one memory of k words of d bytes, with a read port for each sub-vector.

    It takes the place of a :class:`CodebookRAM` if the configuration has a codebook, and reads in
    as many cycles. There is one d, so every port belongs to one lane.

    Members are those of :class:`CodebookRAM`; ``write``, ``log2_d`` and ``book`` change nothing.

    Parameters
    ----------
    config : StreamerConfig
        With a codebook.
    """

    def __init__(self, config: StreamerConfig) -> None:
        self._config = config
        super().__init__(codebook_signature(config))

    def elaborate(self, platform: object) -> Module:
        codebook = self._config.codebook
        assert codebook is not None
        k, d = codebook.shape
        m = Module()
        words = [int.from_bytes(codeword.tobytes(), "little") for codeword in codebook]
        m.submodules.memory = memory = Memory(shape=8 * d, depth=k, init=words)
        for j in range(self._config.bus_bits // d):
            read = memory.read_port()
            address = Signal(range(k), name=f"address_{j}")
            with m.If(self.enable):
                m.d.sync += [
                    address.eq(self.lanes[j]),
                    self.values.word_select(j, 8 * d).eq(read.data),
                ]
            m.d.comb += [read.addr.eq(address), read.en.eq(self.enable)]
        return m
