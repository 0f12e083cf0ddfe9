"""Weight-stream decoder: bus beats in, int8 weights out."""

from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.channel import beat_layout
from rtl.codebook import CodebookRAM
from rtl.config import StreamerConfig
from rtl.descriptor import LAYER
from rtl.gather import Gather, weight_layout
from rtl.loader import CodebookLoader
from rtl.planes import PlaneBuffer
from rtl.queue import StreamQueue
from rtl.router import TRANSFER, Router
from rtl.sequencer import SLOT, Sequencer
from rtl.signs import SignApply

__all__ = ["Decoder"]


class Decoder(wiring.Component):
    """Decode layers of any supported method, d and b, one after another without a pause.

    ::

        codebook -> loader --------------------------v
        beats -> router -> bit-planes -> slice -> codebook RAM -> signs -> gather -> weights
                    |----> elastic FIFO (signs, int8) -- delayed alongside --^

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
        Codebooks and streams, from the DMA.
    weights : Out(stream.Signature(weight_layout(config)))
        W weights per beat.
    transfer, codebook_transfer : Out(stream.Signature(TRANSFER))
        What the bus did for each stream and for each codebook; there before the layer's last
        weight beat. Kept for up to ``layers_in_flight`` layers.
    awaits_codebook : Out(1)
        While no weight beat is offered: the codebook is missing, else data from memory.
    """

    def __init__(self, config: StreamerConfig) -> None:
        self._config = config
        super().__init__(
            {
                "layer": In(stream.Signature(LAYER, always_ready=True)),
                "codebook": In(stream.Signature(beat_layout(config))),
                "beats": In(stream.Signature(beat_layout(config))),
                "weights": Out(stream.Signature(weight_layout(config))),
                "transfer": Out(stream.Signature(TRANSFER)),
                "codebook_transfer": Out(stream.Signature(TRANSFER)),
                "awaits_codebook": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        config = self._config
        m = Module()
        m.submodules.router = router = Router(config)
        m.submodules.planes = planes = PlaneBuffer(config)
        m.submodules.loader = loader = CodebookLoader(config)
        m.submodules.codebook = codebook = CodebookRAM(config)
        m.submodules.sequencer = sequencer = Sequencer(config)
        m.submodules.signs = signs = SignApply(config)
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

        enable = gather.enable
        m.d.comb += [
            sequencer.enable.eq(enable),
            sequencer.filled.eq(planes.filled),
            sequencer.direct_valid.eq(direct.get.valid),
            sequencer.book_loaded.eq(loader.loaded),
            direct.get.ready.eq(sequencer.direct_ready),
            loader.take.eq(sequencer.take_book),
            planes.step.eq(sequencer.step),
            planes.log2_d.eq(sequencer.slot.log2_d),
            planes.index_bits.eq(sequencer.layer.p.index_bits),
            planes.release.eq(sequencer.release),
            planes.enable.eq(enable),
        ]

        # slots[i] and direct_beats[i] are what the data at depth i of the pipeline belong to:
        # 1 sliced index, 2 bank address, 3 RAM output, 4 codebook output register.
        slots = [sequencer.slot]
        direct_beats = [direct.get.payload]
        for depth in range(1, 5):
            slot = Signal(SLOT, name=f"slot_{depth}")
            direct_beat = Signal(config.bus_bits, name=f"direct_beat_{depth}")
            with m.If(enable):
                m.d.sync += [slot.eq(slots[-1]), direct_beat.eq(direct_beats[-1])]
            slots.append(slot)
            direct_beats.append(direct_beat)
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
            signs.values.eq(codebook.values),
            signs.negative.eq(direct_beats[4]),
            signs.signed.eq(slots[4].signed),
            gather.valid.eq(slots[4].valid),
            gather.raw.eq(slots[4].raw),
            gather.last.eq(slots[4].last),
            gather.weights.eq(signs.weights),
            gather.raw_beat.eq(direct_beats[4]),
            self.weights.payload.eq(gather.output.payload),
            self.weights.valid.eq(gather.output.valid),
            gather.output.ready.eq(self.weights.ready),
            self.awaits_codebook.eq(awaits_codebook),
        ]
        return m
