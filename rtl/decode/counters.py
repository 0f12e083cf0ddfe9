"""Counters: every cycle of a run is charged to one layer and to one cause."""

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.bus.queue import StreamQueue
from rtl.config import StreamerConfig
from rtl.decode.router import TRANSFER
from rtl.descriptor import REPORT, Status

__all__ = ["OUTCOME", "LayerCounters"]

#: Outcome of the checks of a layer, and what its report needs to know.
#: It loads a codebook, uses the one of a layer before, or reads zeros.
OUTCOME = data.StructLayout({"status": Status, "load": 1, "keep": 1, "zeros": 1})


class LayerCounters(wiring.Component):
    """Account for cycles and close each layer with a report.

    A cycle belongs to the layer whose weights leave in it, else to the next one to leave weights.
    Counting starts in the cycle after a descriptor is accepted and ends with the last weight
    beat of the last accepted layer; an idle machine counts nothing. In each cycle exactly one
    counter grows:

    - busy: a weight beat leaves;
    - compute: a weight beat is offered and not taken;
    - decoder: a weight beat is there, but the counters hold it back for the report of a refused
      layer before it (one cycle for each);
    - codebook, memory: no weight beat is there because, when it should have entered the decoder's
      pipeline, the codebook (or the zeros of codes) or data from memory were missing. Start-up and
      the bus time of indices, codebooks and int8 beats that do not complete an output beat are
      memory.

    writeback is reserved for results and stays zero. Counters are 32 bits wide and wrap.

    Parameters
    ----------
    config : StreamerConfig

    Members
    -------
    accepted : In(1)
        The host's descriptor is taken in this cycle.
    outcome : In(stream.Signature(OUTCOME))
        Outcome of the checks, in order.
    transfer : In(stream.Signature(TRANSFER))
        What the bus did for the stream of a layer that was not refused.
    codebook_transfer : In(stream.Signature(TRANSFER))
        What it did for the codebook or the zeros of a layer that reads them.
    offered : In(1)
        The decoder has a weight beat.
    leaves : In(1)
        It is taken. Must not be asserted while ``hold``.
    last : In(1)
        It is the last of its layer.
    awaits_codebook : In(1)
        If none is offered: the codebook is missing.
    hold : Out(1)
        Weights must not leave in this cycle.
    report : Out(stream.Signature(REPORT))
        One per layer, in order, refused layers included. Up to ``layers_in_flight`` are kept;
        the sender of descriptors must not allow more.
    """

    def __init__(self, config: StreamerConfig) -> None:
        self._config = config
        super().__init__(
            {
                "accepted": In(1),
                "outcome": In(stream.Signature(OUTCOME)),
                "transfer": In(stream.Signature(TRANSFER)),
                "codebook_transfer": In(stream.Signature(TRANSFER)),
                "offered": In(1),
                "leaves": In(1),
                "last": In(1),
                "awaits_codebook": In(1),
                "hold": Out(1),
                "report": Out(stream.Signature(REPORT)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        config = self._config
        m = Module()
        m.submodules.reports = reports = StreamQueue(REPORT, config.layers_in_flight)

        outcome = self.outcome.payload
        finishes = Signal()
        reads_book = outcome.load | outcome.zeros
        m.d.comb += [
            self.hold.eq(self.outcome.valid & (outcome.status != Status.OK)),
            finishes.eq(self.leaves & self.last),
            self.outcome.ready.eq(self.hold | finishes),
            self.transfer.ready.eq(finishes),
            self.codebook_transfer.ready.eq(finishes & reads_book),
        ]
        open_layers = Signal(range(config.layers_in_flight + 1))
        m.d.sync += open_layers.eq(open_layers + self.accepted - self.outcome.ready)

        # An error in a codebook is one of every layer that uses it.
        kept_error = Signal()
        error = (
            self.transfer.p.error
            | (reads_book & self.codebook_transfer.p.error)
            | (outcome.keep & kept_error)
        )
        with m.If(finishes & outcome.load):
            m.d.sync += kept_error.eq(self.codebook_transfer.p.error)

        stalled = ~self.leaves
        counts: dict[str, Value] = {
            "cycles": Const(1),
            "busy_cycles": self.leaves,
            "memory_cycles": stalled & ~self.offered & ~self.awaits_codebook,
            "codebook_cycles": stalled & ~self.offered & self.awaits_codebook,
            "decoder_cycles": stalled & self.offered & self.hold,
            "compute_cycles": stalled & self.offered & ~self.hold,
            "writeback_cycles": Const(0),
        }
        fields: dict[str, Value] = {
            "status": Mux(finishes, Mux(error, Status.READ_ERROR, Status.OK), outcome.status),
            "reserved": Const(0, 24),
        }
        for name in ("beats", "bursts"):
            of_codebook = Mux(reads_book, self.codebook_transfer.p[name], 0)
            fields[name] = Mux(finishes, (self.transfer.p[name] + of_codebook)[:32], 0)
        for name, count in counts.items():
            # `now` includes the current cycle; `before` is what earlier cycles left.
            before = Signal(32, name=f"{name}_before")
            now = Signal(32, name=f"{name}_now")
            m.d.comb += now.eq(before + count)
            # An idle machine forgets; a refused layer leaves its cycles to the next one.
            m.d.sync += before.eq(Mux(finishes | (open_layers == 0), 0, now))
            fields[name] = Mux(finishes, now, 0)

        m.d.comb += [
            # One assignment: a constant part of a signal would become a Verilog process that
            # no event ever starts.
            reports.put.payload.eq(Cat(fields[name] for name, _ in REPORT)),
            reports.put.valid.eq(self.outcome.ready),
        ]
        connect(m, reports.get, flipped(self.report))
        return m
