"""Run control: from start to done, and what went wrong first."""

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.program import RunStatus

__all__ = ["RunControl"]


class RunControl(wiring.Component):
    """Start, watch and end a run.

    An error lets no further layer begin. Those that have begun come to their end, so that nothing
    is left under way; the run is then done, with the status of the first error.

    Members
    -------
    request : In(1)
        The host wants to start. Ignored while ``busy``, and after STALLED until reset.
    timeout : In(32)
        Cycles without progress after which the run is given up; 0 for never.
    moves : In(1)
        There is progress in this cycle.
    drained : In(1)
        Nothing is under way and nothing is to come.
    refused : In(1)
        Descriptor ``fetched`` is refused, for the reason in ``refusal``.
    refusal : In(RunStatus)
    fetched : In(16)
    read_error, write_error : In(1)
        A beat or a response was an error.
    finished : In(1)
        A layer is finished.
    start : Out(1)
        A run begins with the next cycle.
    stop : Out(1)
        No further layer may begin.
    busy, done : Out(1)
    status : Out(RunStatus)
    layer : Out(16)
        The first layer that failed: for reads and writes, the first that was not finished.
    layers_done : Out(16)
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "request": In(1),
                "timeout": In(32),
                "moves": In(1),
                "drained": In(1),
                "refused": In(1),
                "refusal": In(RunStatus),
                "fetched": In(16),
                "read_error": In(1),
                "write_error": In(1),
                "finished": In(1),
                "start": Out(1),
                "stop": Out(1),
                "busy": Out(1),
                "done": Out(1),
                "status": Out(RunStatus),
                "layer": Out(16),
                "layers_done": Out(16),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        still = Signal(32)  # cycles without progress
        stalled = Signal()
        m.d.comb += [
            self.start.eq(self.request & ~self.busy & (self.status != RunStatus.STALLED)),
            self.stop.eq(self.status != RunStatus.OK),
            stalled.eq(self.busy & (self.timeout != 0) & (still == self.timeout)),
        ]
        m.d.sync += [
            still.eq(still + 1),
            self.layers_done.eq(self.layers_done + self.finished),
        ]
        with m.If(self.moves | self.start):
            m.d.sync += still.eq(0)

        with m.If(self.start):
            m.d.sync += [
                self.busy.eq(1),
                self.done.eq(0),
                self.status.eq(RunStatus.OK),
                self.layer.eq(0),
                self.layers_done.eq(0),
            ]
        with m.Elif(self.busy):
            with m.If(self.status == RunStatus.OK):
                with m.If(self.read_error):
                    m.d.sync += self.status.eq(RunStatus.READ_ERROR)
                    m.d.sync += self.layer.eq(self.layers_done)
                with m.Elif(self.write_error):
                    m.d.sync += self.status.eq(RunStatus.WRITE_ERROR)
                    m.d.sync += self.layer.eq(self.layers_done)
                with m.Elif(self.refused):
                    m.d.sync += self.status.eq(self.refusal)
                    m.d.sync += self.layer.eq(self.fetched)
            with m.If(self.drained | stalled):
                m.d.sync += [self.busy.eq(0), self.done.eq(1)]
            with m.If(~self.drained & stalled):
                m.d.sync += self.status.eq(RunStatus.STALLED)
                m.d.sync += self.layer.eq(self.layers_done)
        return m
