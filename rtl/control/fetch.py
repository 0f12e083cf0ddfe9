"""Fetcher: the descriptors of a program from memory, checked, one layer after another."""

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.accelerator_config import AcceleratorConfig
from rtl.bus.channel import REGION, beat_layout
from rtl.bus.gearbox import Gearbox
from rtl.checker import DescriptorChecker
from rtl.control.check import ShapeChecker
from rtl.control.jobs import JobChecker
from rtl.descriptor import Status
from rtl.program import PROGRAM_BYTES, PROGRAM_LAYER, VECTOR_LAYER, VECTOR_VERSION, RunStatus
from vq.container import GRANULE_BYTES

__all__ = ["Fetcher"]


class Fetcher(wiring.Component):
    """Read all descriptors of a program ahead of use; hand on those that pass their checks.

    The first descriptor that fails ends the program: those behind it are read and dropped.

    Parameters
    ----------
    config : AcceleratorConfig

    Members
    -------
    start : In(1)
        Begin; only while not ``busy``.
    program : In(58)
        Granule of the first descriptor.
    layers : In(16)
        Number of descriptors.
    stop : In(1)
        Hand on no further layer: something else failed.
    region : Out(stream.Signature(REGION))
    beats : In(stream.Signature(beat_layout(config.streamer)))
        To and from the DMA.
    layer : Out(stream.Signature(PROGRAM_LAYER))
        A layer that is fine. With a vector unit it may be a ``VECTOR_LAYER``, by its version.
    number : Out(16)
        Which one is being fetched, checked or handed on.
    busy : Out(1)
        Not all descriptors have been handed on or dropped.
    failed : Out(1)
        The current descriptor is refused in this cycle, for the reason in ``status``.
    status : Out(RunStatus)
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = config
        super().__init__(
            {
                "start": In(1),
                "program": In(58),
                "layers": In(16),
                "stop": In(1),
                "region": Out(stream.Signature(REGION)),
                "beats": In(stream.Signature(beat_layout(config.streamer))),
                "layer": Out(stream.Signature(PROGRAM_LAYER)),
                "number": Out(16),
                "busy": Out(1),
                "failed": Out(1),
                "status": Out(RunStatus),
            }
        )

    def elaborate(self, platform: object) -> Module:
        config = self._config
        m = Module()
        m.submodules.gearbox = gearbox = Gearbox(config.bus_bits, 8 * PROGRAM_BYTES)
        m.submodules.weights = weights = DescriptorChecker(config.streamer)
        m.submodules.shapes = shapes = ShapeChecker(config)
        granules = PROGRAM_BYTES // GRANULE_BYTES
        layer = Signal(PROGRAM_LAYER)
        read_error = Signal()  # in the descriptor that is coming
        error = Signal()  # in the one that is there
        stopped = Signal()
        verdict = Signal(RunStatus)
        beat_taken = self.beats.valid & self.beats.ready
        m.d.comb += [
            self.region.p.address.eq(self.program),
            self.region.p.granules.eq(self.layers * granules),
            gearbox.put.payload.eq(self.beats.p.data),
            gearbox.put.valid.eq(self.beats.valid),
            self.beats.ready.eq(gearbox.put.ready),
            shapes.layer.eq(layer),
            weights.descriptor.payload.eq(layer.weights),
            self.layer.payload.eq(layer),
            self.status.eq(verdict),
        ]
        # What is asked, and what has come of it: without a vector unit, all layers are the array's.
        start: Signal = shapes.start
        weighted: Value = layer.weighted
        done: Value = shapes.done
        status: Value = shapes.status
        if config.vector_unit:
            m.submodules.jobs = jobs = JobChecker(config)
            of_vector = Signal()
            start = Signal()
            m.d.comb += [
                of_vector.eq(layer.version == VECTOR_VERSION),
                jobs.job.eq(data.View(VECTOR_LAYER, layer.as_value()).job),
                jobs.start.eq(start & of_vector),
                shapes.start.eq(start & ~of_vector),
            ]
            weighted = weighted & ~of_vector
            done = Mux(of_vector, jobs.done, shapes.done)
            status = Mux(of_vector, jobs.status, shapes.status)
        with m.If(beat_taken):
            m.d.sync += read_error.eq(read_error | self.beats.p.error)
        with m.If(self.stop):
            m.d.sync += stopped.eq(1)

        m.d.comb += self.busy.eq(1)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.busy.eq(0)
                with m.If(self.start):
                    m.d.sync += [self.number.eq(0), stopped.eq(0), read_error.eq(0)]
                    m.next = "REQUEST"
            with m.State("REQUEST"):
                with m.If(self.number == self.layers):
                    m.next = "IDLE"
                with m.Else():
                    m.d.comb += self.region.valid.eq(1)
                    with m.If(self.region.ready):
                        m.next = "RECEIVE"
            with m.State("RECEIVE"):
                with m.If(self.number == self.layers):
                    m.next = "IDLE"
                with m.Else():
                    m.d.comb += gearbox.get.ready.eq(1)
                    with m.If(gearbox.get.valid):
                        m.d.sync += [
                            layer.eq(gearbox.get.payload),
                            error.eq(read_error | self.beats.p.error),
                            read_error.eq(0),
                        ]
                        m.next = "START"
            with m.State("START"):
                with m.If(stopped):
                    m.next = "NEXT"
                with m.Else():
                    m.d.comb += [start.eq(1), weights.descriptor.valid.eq(weighted)]
                    m.next = "CHECK"
            with m.State("CHECK"):
                with m.If(done & (weights.verdict.valid | ~weighted)):
                    m.d.comb += weights.verdict.ready.eq(1)
                    m.d.sync += verdict.eq(status)
                    with m.If(error):
                        m.d.sync += verdict.eq(RunStatus.READ_ERROR)
                    with m.Elif(weighted & (weights.verdict.p.status != Status.OK)):
                        # A bad version makes every other complaint meaningless.
                        with m.If(status != RunStatus.VERSION):
                            m.d.sync += verdict.eq(weights.verdict.p.status)
                    m.next = "JUDGE"
            with m.State("JUDGE"):
                with m.If(verdict != RunStatus.OK):
                    m.d.comb += self.failed.eq(1)
                    m.d.sync += stopped.eq(1)
                    m.next = "NEXT"
                with m.Elif(stopped):
                    m.next = "NEXT"
                with m.Else():
                    m.d.comb += self.layer.valid.eq(1)
                    with m.If(self.layer.ready):
                        m.next = "NEXT"
            with m.State("NEXT"):
                m.d.sync += self.number.eq(self.number + 1)
                m.next = "RECEIVE"
        return m
