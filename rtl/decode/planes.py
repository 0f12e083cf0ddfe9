"""Bit-plane buffer: chunks of indices go in as planes and come out as whole indices."""

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl.config import StreamerConfig
from rtl.decode.codes import CODE_BITS_MAX, code_lanes
from rtl.decode.router import plane_layout
from vq.container import CHUNK_SUBVECTORS

__all__ = ["PlaneBuffer", "index_lanes"]


def index_lanes(config: StreamerConfig) -> data.ArrayLayout:
    """Indices of one step; with ``d > d_min`` only the first ``W / d`` lanes are used."""
    return data.ArrayLayout(config.index_bits_max, config.banks)


class PlaneBuffer(wiring.Component):
    """Two chunks of ``index_bits_max`` bit-planes, one being written while the other is read.

    ``W / d`` consecutive sub-vectors are an aligned slice of one word of every plane, for every b:
    reading an index is choosing a slice, never shifting by a variable amount. Codes are indices of
    sub-vectors of one weight: the slice is the whole word.

    Parameters
    ----------
    config : StreamerConfig

    Members
    -------
    planes : In(stream.Signature(plane_layout(config)))
        Words to store. Not ready while both buffers hold unread chunks.
    filled : Out(1)
        The chunk to be read is complete.
    step : In(range(512 * d_max // W))
        Which ``W / d`` sub-vectors of the chunk to read.
    log2_d : In(3)
        Sub-vector length of the layer being read.
    index_bits : In(4)
        Planes of the layer being read; the bits above are zero in ``lanes``.
    release : In(1)
        The chunk has been read. Must not be asserted unless ``filled``.
    enable : In(1)
        Advance the output register.
    lanes : Out(index_lanes(config))
        Indices of the step, one cycle later.
    codes : Out(code_lanes(config))
        If ``log2_d`` is 0: the same of codes, which are as many as the lanes.
    """

    def __init__(self, config: StreamerConfig) -> None:
        self._config = config
        super().__init__(
            {
                "planes": In(stream.Signature(plane_layout(config))),
                "filled": Out(1),
                "step": In(range(CHUNK_SUBVECTORS * config.d_max // config.bus_bits)),
                "log2_d": In(3),
                "index_bits": In(4),
                "release": In(1),
                "enable": In(1),
                "lanes": Out(index_lanes(config)),
                "codes": Out(code_lanes(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        config = self._config
        m = Module()
        write_half = Signal()
        read_half = Signal()
        full_halves = Signal(range(3))
        stored = self.planes.valid & self.planes.ready
        completed = stored & self.planes.p.last
        m.d.comb += [
            self.planes.ready.eq(full_halves != 2),
            self.filled.eq(full_halves != 0),
        ]
        m.d.sync += [
            full_halves.eq(full_halves + completed - self.release),
            write_half.eq(write_half ^ completed),
            read_half.eq(read_half ^ self.release),
        ]

        words = config.granule_beats
        word_bits = (words - 1).bit_length()
        word = Signal(range(max(2, words)))
        m.d.comb += word.eq(self.step >> self.log2_d)

        planes, whole = [], []
        for p in range(config.index_bits_max):
            m.submodules[f"plane_{p}"] = memory = Memory(
                shape=config.bus_bits, depth=2 * words, init=[]
            )
            write = memory.write_port()
            read = memory.read_port(domain="comb")
            m.d.comb += [
                write.addr.eq(Cat(self.planes.p.word[:word_bits], write_half)),
                write.data.eq(self.planes.p.data),
                write.en.eq(stored & (self.planes.p.plane == p)),
                read.addr.eq(Cat(word[:word_bits], read_half)),
            ]
            whole.append(Mux(p < self.index_bits, read.data, 0))
            planes.append(self._slice(m, whole[p]))
        with m.If(self.enable):
            for lane in range(config.banks):
                m.d.sync += self.lanes[lane].eq(Cat(plane[lane] for plane in planes))
            for lane in range(config.bus_bits):
                m.d.sync += self.codes[lane].eq(Cat(word[lane] for word in whole[:CODE_BITS_MAX]))
        return m

    def _slice(self, m: Module, word: Value) -> Value:
        """Low ``W / d`` bits of the result are the slice of ``word`` that ``step`` selects.

        Halving level by level, highest bit of the slice number first. The levels up to ``d_min``
        always halve; the later ones only if d is that long.
        """
        config = self._config
        log2_d_min, log2_d_max = config.d_min.bit_length() - 1, config.d_max.bit_length() - 1
        for level in range(1, log2_d_max + 1):
            half = config.bus_bits >> level
            upper = Signal(name=f"upper_{level}")
            with m.Switch(self.log2_d):
                for log2_d in range(max(level, log2_d_min), log2_d_max + 1):
                    with m.Case(log2_d):
                        m.d.comb += upper.eq(self.step[log2_d - level])
            halved = Signal(len(word) if level > log2_d_min else half, name=f"halved_{level}")
            m.d.comb += halved.eq(Mux(upper, Cat(word[half : 2 * half], word[half:]), word))
            word = halved
        return word
