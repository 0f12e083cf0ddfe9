"""Weight-stream decoder: bus beats in, int8 weights out."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.bus.channel import beat_layout
from rtl.bus.queue import StreamQueue
from rtl.config import StreamerConfig
from rtl.decode.codebook import CodebookRAM, CodebookROM
from rtl.decode.codes import CodeOffset
from rtl.decode.gather import Gather, weight_layout
from rtl.decode.loader import CodebookLoader
from rtl.decode.parity import ParityGear
from rtl.decode.planes import PlaneBuffer
from rtl.decode.router import TRANSFER, Router
from rtl.decode.sequencer import SLOT, Sequencer
from rtl.decode.signs import SignApply
from rtl.decode.zeros import zero_beat_layout, zero_row_layout
from rtl.descriptor import LAYER

__all__ = ["Decoder", "decoder_signature"]


def decoder_signature(config: StreamerConfig) -> wiring.Signature:
    """Ports of a :class:`Decoder`, which documents them."""
    return wiring.Signature(
        {
            "layer": In(stream.Signature(LAYER, always_ready=True)),
            "codebook": In(stream.Signature(beat_layout(config))),
            "zero_beats": Out(stream.Signature(zero_beat_layout(config))),
            "zero_rows": In(stream.Signature(zero_row_layout(config))),
            "beats": In(stream.Signature(beat_layout(config))),
            "weights": Out(stream.Signature(weight_layout(config))),
            "transfer": Out(stream.Signature(TRANSFER)),
            "codebook_transfer": Out(stream.Signature(TRANSFER)),
            "awaits_codebook": Out(1),
        }
    )


class Decoder(wiring.Component):
    """Decode layers of any supported method, d and b, one after another without a pause.

    ::

        codebook -> loader --------------------------v
                    |--> zero beats
        zero rows ------------------------------> code minus zero ------v
        beats -> router -> bit-planes -> slice -> codebook RAM -> signs -> gather -> weights
                    |----> elastic FIFO (signs, int8) -> parity -- delayed --^

    With a codebook in ROM no layer loads one, and zeros of groups are all that the loader sees.

    From the sequencer to the output register are five cycles. The pipeline stops as a whole while
    the output is not taken; the FIFOs before it go on filling.

    Parameters
    ----------
    config : StreamerConfig

    Members
    -------
    layer : In(stream.Signature(LAYER, always_ready=True))
        Layers in the order of their beats. Up to ``layers_in_flight`` are kept; the sender must
        not give more before the first one's last weights have left.
    codebook, beats : In(stream.Signature(beat_layout(config)))
        Codebooks (or group zeros) and streams, from the DMA.
    zero_beats : Out(stream.Signature(zero_beat_layout(config)))
        What came with the codebooks but is zeros of groups: of codes with ``load``.
    zero_rows : In(stream.Signature(zero_row_layout(config)))
        For layers with ``zeros``: a row for each group of each block, wherever they come from.
        The first output beat of a group takes its row. ``last`` marks a layer's last row; rows
        that no group uses may be before it, but not behind.
    weights : Out(stream.Signature(weight_layout(config)))
        W weights per beat.
    transfer, codebook_transfer : Out(stream.Signature(TRANSFER))
        What the bus did for each stream and for each codebook or the zeros of a layer; there
        before the layer's last weight beat. Kept for up to ``layers_in_flight`` layers.
    awaits_codebook : Out(1)
        While no weight beat is offered: codebook or zeros are missing, else data from memory.
    """

    def __init__(self, config: StreamerConfig) -> None:
        self._config = config
        super().__init__(decoder_signature(config))

    def elaborate(self, platform: object) -> Module:
        config = self._config
        m = Module()
        m.submodules.router = router = Router(config)
        m.submodules.planes = planes = PlaneBuffer(config)
        m.submodules.loader = loader = CodebookLoader(config)
        book = CodebookRAM if config.codebook is None else CodebookROM
        m.submodules.codebook = codebook = book(config)
        m.submodules.sequencer = sequencer = Sequencer(config)
        m.submodules.parity = parity = ParityGear(config)
        m.submodules.signs = signs = SignApply(config)
        m.submodules.codes = codes = CodeOffset(config)
        m.submodules.gather = gather = Gather(config)
        m.submodules.direct_queue = direct = StreamQueue(config.bus_bits, config.direct_fifo_beats)

        # Three copies of each layer, because the three readers are at different layers.
        for name, reader in (("router", router), ("loader", loader), ("sequencer", sequencer)):
            queue = StreamQueue(LAYER, config.layers_in_flight)
            m.submodules[f"{name}_layers"] = queue
            wanted = self.layer.p.load if reader is loader else 1
            m.d.comb += [
                queue.put.payload.eq(self.layer.payload),
                queue.put.valid.eq(self.layer.valid & wanted),
            ]
            connect(m, queue.get, reader.layer)
        connect(m, router.planes, planes.planes)
        connect(m, flipped(self.beats), router.beats)
        connect(m, flipped(self.codebook), loader.beats)
        connect(m, router.direct, direct.put)
        connect(m, loader.zeros, flipped(self.zero_beats))
        connect(m, flipped(self.zero_rows), sequencer.rows)
        for name, source, target in (
            ("stream", router.transfer, self.transfer),
            ("codebook", loader.transfer, self.codebook_transfer),
        ):
            queue = StreamQueue(TRANSFER, config.layers_in_flight)
            m.submodules[f"{name}_transfers"] = queue
            m.d.comb += [
                queue.put.payload.eq(source.payload),
                queue.put.valid.eq(source.valid),
            ]
            connect(m, queue.get, flipped(target))

        # Layers whose stream has passed the router and whose last output beat has not started.
        arrived = Signal(range(config.layers_in_flight + 1))
        m.d.sync += arrived.eq(arrived + router.transfer.valid - sequencer.layer.ready)

        enable = gather.enable
        m.d.comb += [
            sequencer.enable.eq(enable),
            sequencer.filled.eq(planes.filled),
            sequencer.direct_valid.eq(direct.get.valid),
            sequencer.all_arrived.eq(arrived != 0),
            sequencer.book_loaded.eq(loader.loaded),
            direct.get.ready.eq(sequencer.direct_ready),
            loader.take.eq(sequencer.take_book),
            parity.beat.eq(direct.get.payload),
            parity.missing.eq(sequencer.direct_missing),
            parity.parity.eq(sequencer.layer.p.parity),
            parity.log2_d.eq(sequencer.slot.log2_d),
            parity.phase.eq(sequencer.step),
            parity.taken.eq(sequencer.start),
            parity.enable.eq(enable),
            planes.step.eq(sequencer.step),
            planes.log2_d.eq(sequencer.slot.log2_d),
            planes.index_bits.eq(sequencer.layer.p.index_bits),
            planes.release.eq(sequencer.release),
            planes.enable.eq(enable),
        ]

        # slots[i] and direct_beats[i] are what the data at depth i of the pipeline belong to:
        # 1 sliced index, 2 bank address, 3 RAM output, 4 codebook output register.
        slots = [sequencer.slot]
        direct_beats = {2: parity.signs}
        for depth in range(1, 5):
            slot = Signal(SLOT, name=f"slot_{depth}")
            with m.If(enable):
                m.d.sync += slot.eq(slots[-1])
            slots.append(slot)
        for depth in (3, 4):
            direct_beats[depth] = Signal(config.bus_bits, name=f"direct_beat_{depth}")
            with m.If(enable):
                m.d.sync += direct_beats[depth].eq(direct_beats[depth - 1])
        zeros = Signal(sequencer.zeros.shape())
        with m.If(enable):
            m.d.sync += zeros.eq(sequencer.zeros)
        awaits_codebook = Signal()
        with m.If(enable):
            m.d.sync += awaits_codebook.eq(slots[4].awaits_codebook & ~slots[4].valid)

        m.d.comb += [
            codebook.write.eq(loader.row),
            codebook.enable.eq(enable),
            codebook.lanes.eq(planes.lanes),
            codebook.log2_d.eq(slots[1].log2_d),
            codebook.book.eq(slots[1].book),
            # The lookup that follows the last one of the old book is being made in this cycle.
            loader.free.eq(enable & slots[2].valid & slots[2].new_book),
            codes.enable.eq(enable),
            codes.lanes.eq(planes.codes),
            codes.zeros.eq(zeros),
            signs.values.eq(codebook.values),
            signs.negative.eq(direct_beats[4]),
            signs.signed.eq(slots[4].signed),
            gather.valid.eq(slots[4].valid),
            gather.raw.eq(slots[4].raw),
            gather.last.eq(slots[4].last),
            gather.weights.eq(Mux(slots[4].codes, codes.weights, signs.weights)),
            gather.raw_beat.eq(direct_beats[4]),
            self.weights.payload.eq(gather.output.payload),
            self.weights.valid.eq(gather.output.valid),
            gather.output.ready.eq(self.weights.ready),
            self.awaits_codebook.eq(awaits_codebook),
        ]
        return m
