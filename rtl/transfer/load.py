"""Loader: activations and residuals from memory into the buffers, ahead of their layer."""

from amaranth import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.bus.channel import REGION, beat_layout
from rtl.bus.gearbox import Gearbox
from rtl.bus.queue import StreamQueue
from rtl.compute.config import ArrayConfig
from rtl.compute.outputs import output_write_layout
from rtl.compute.vectors import input_write_layout
from rtl.config import StreamerConfig

__all__ = ["LOAD_LAYER", "SLOTS", "Loader"]

#: Parts of each buffer that layers own in turn: one is computed on while the next is filled.
SLOTS = 2

_TRANSFER = data.StructLayout({"region": REGION, "word": 24, "enable": 1})
#: What a layer needs in the buffers before it can start.
LOAD_LAYER = data.StructLayout(
    {
        "input": _TRANSFER,  # activations; without, the layer uses those of the layer before
        "residual": _TRANSFER,  # what is added to its outputs
        "after_writes": 1,  # not before all earlier layers are in memory
    }
)
_JOB = data.StructLayout({"granules": 32, "word": 24, "residual": 1, "last": 1, "empty": 1})


class Loader(wiring.Component):
    """Fill a slot of each buffer for one layer after another.

    A layer's loading starts when there is a free slot of the input buffer (if it has activations
    of its own) and of the output buffer. Data of the next layer are requested while those of
    the one before still come. Only the count of slots is kept here: which words a layer
    uses, its descriptor says.

    Parameters
    ----------
    config : StreamerConfig
    array : ArrayConfig

    Members
    -------
    layer : In(stream.Signature(LOAD_LAYER))
    region : Out(stream.Signature(REGION))
        To the DMA.
    beats : In(stream.Signature(beat_layout(config)))
        From the DMA.
    input : Out(input_write_layout(array))
    output : Out(output_write_layout(array))
        Words for the buffers.
    input_free, output_free : In(1)
        A slot is no longer used.
    all_written : In(1)
        No layer whose loading has started has outputs that are not in memory.
    started : Out(1)
        The loading of a layer starts.
    loaded : Out(1)
        All that a layer needs is in the buffers.
    awaits_writes : Out(1)
        Nothing is loaded because earlier outputs are not in memory or in the way.
    error : Out(1)
        A beat was an error.
    """

    def __init__(self, config: StreamerConfig, array: ArrayConfig) -> None:
        self._config, self._array = config, array
        super().__init__(
            {
                "layer": In(stream.Signature(LOAD_LAYER)),
                "region": Out(stream.Signature(REGION)),
                "beats": In(stream.Signature(beat_layout(config))),
                "input": Out(input_write_layout(array)),
                "output": Out(output_write_layout(array)),
                "input_free": In(1),
                "output_free": In(1),
                "all_written": In(1),
                "started": Out(1),
                "loaded": Out(1),
                "awaits_writes": Out(1),
                "error": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.jobs = jobs = StreamQueue(_JOB, 4)
        self._request(m, jobs)
        self._receive(m, jobs)
        return m

    def _request(self, m: Module, jobs: StreamQueue) -> None:
        """Take layers, hold slots, ask for the regions."""
        layer = self.layer.payload
        input_slots = Signal(range(SLOTS + 1), init=SLOTS)
        output_slots = Signal(range(SLOTS + 1), init=SLOTS)
        takes_input = Signal()
        takes_output = Signal()
        m.d.sync += [
            input_slots.eq(input_slots + self.input_free - takes_input),
            output_slots.eq(output_slots + self.output_free - takes_output),
        ]
        written = ~layer.after_writes | self.all_written
        input_there = ~layer.input.enable | (input_slots != 0)
        output_there = output_slots != 0
        residual_asked = Signal()  # only its residual is still to be asked for
        part = data.View(_TRANSFER, Signal(_TRANSFER.size, name="part"))
        asks = Signal()
        there = Signal()
        m.d.comb += [
            there.eq(residual_asked | (written & input_there & output_there)),
            self.awaits_writes.eq(
                self.layer.valid & ~residual_asked & (~written | (input_there & ~output_there))
            ),
            jobs.put.p.granules.eq(part.region.granules),
            jobs.put.p.word.eq(part.word),
            jobs.put.p.residual.eq(residual_asked | ~layer.input.enable),
            jobs.put.p.last.eq(residual_asked | ~(layer.input.enable & layer.residual.enable)),
            jobs.put.p.empty.eq(~part.enable),
            part.eq(layer.residual),
            self.region.payload.eq(part.region),
            self.region.valid.eq(self.layer.valid & there & part.enable & jobs.put.ready),
            jobs.put.valid.eq(asks),
            asks.eq(self.layer.valid & there & jobs.put.ready & (self.region.ready | ~part.enable)),
            self.layer.ready.eq(asks & jobs.put.p.last),
            self.started.eq(asks & ~residual_asked),
            takes_input.eq(self.started & layer.input.enable),
            takes_output.eq(self.started),
        ]
        with m.If(layer.input.enable & ~residual_asked):
            m.d.comb += part.eq(layer.input)
        with m.If(asks):
            m.d.sync += residual_asked.eq(~jobs.put.p.last)

    def _receive(self, m: Module, jobs: StreamQueue) -> None:
        """Sort the beats into the buffers."""
        config, array = self._config, self._array
        m.submodules.columns = columns = Gearbox(config.bus_bits, 8 * array.columns)
        m.submodules.rows = rows = Gearbox(config.bus_bits, 8 * array.rows)
        job = jobs.get.payload
        beat_shift = (config.granule_beats - 1).bit_length()
        number = Signal(24)
        beat = Signal(32 + beat_shift)
        last_beat = beat == (job.granules << beat_shift) - 1
        busy = jobs.get.valid & ~job.empty
        to_rows = busy & job.residual
        to_columns = busy & ~job.residual
        taken = self.beats.valid & self.beats.ready
        word_taken = Signal()
        m.d.comb += [
            columns.put.payload.eq(self.beats.p.data),
            columns.put.valid.eq(self.beats.valid & to_columns),
            rows.put.payload.eq(self.beats.p.data),
            rows.put.valid.eq(self.beats.valid & to_rows),
            self.beats.ready.eq((to_columns & columns.put.ready) | (to_rows & rows.put.ready)),
            columns.get.ready.eq(1),
            rows.get.ready.eq(1),
            self.input.enable.eq(columns.get.valid),
            self.input.word.eq(job.word + number),
            self.input.data.eq(columns.get.payload),
            self.output.enable.eq(rows.get.valid),
            self.output.word.eq(job.word + number),
            self.output.data.eq(rows.get.payload),
            word_taken.eq(columns.get.valid | rows.get.valid),
            jobs.get.ready.eq(job.empty | (taken & last_beat)),
            self.loaded.eq(jobs.get.valid & jobs.get.ready & job.last),
            self.error.eq(taken & (self.beats.p.error | (last_beat & ~self.beats.p.last))),
        ]
        with m.If(word_taken):
            m.d.sync += number.eq(number + 1)
        with m.If(taken):
            m.d.sync += beat.eq(beat + 1)
        with m.If(jobs.get.valid & jobs.get.ready):
            m.d.sync += [number.eq(0), beat.eq(0)]
