"""Check of an operation of the vector unit: counts that contradict each other are refused."""

from amaranth import Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.accelerator_config import AcceleratorConfig
from rtl.bus.pieces import LOOPS
from rtl.control.multiply import SerialMultiplier
from rtl.program import RunStatus
from rtl.vector.job import JOB, has_factors, has_other, number_words, row_words
from rtl.vector.layer import VectorOp
from vq.container import GRANULE_BYTES

__all__ = ["JobChecker"]

_COUNT_BITS, _PRODUCT_BITS = 17, 56


class JobChecker(wiring.Component):
    """Compare what pieces hold with what the rows of an operation take.

    Parameters
    ----------
    config : AcceleratorConfig

    Members
    -------
    job : In(JOB)
        Constant from ``start`` to ``done``.
    start : In(1)
    done : Out(1)
    status : Out(RunStatus)
        SHAPE, BUFFER, ADDRESS or OK, when ``done``.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = config
        super().__init__({"job": In(JOB), "start": In(1), "done": Out(1), "status": Out(RunStatus)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.multiplier = multiplier = SerialMultiplier(_COUNT_BITS, _PRODUCT_BITS)
        config, job = self._config.vector, self.job
        layer = job.operation
        mean = layer.op == VectorOp.MEAN
        beats = Signal(14)
        m.d.comb += beats.eq(((layer.channels - 1) >> config.log2_lanes) + 1)
        product = multiplier.product
        bad = Signal()
        table, channel = number_words(config.lanes)

        # Numbers of channels come once for all rows, or once for every so many.
        covers = (product >= layer.rows) & (product < layer.rows + layer.same_channels)
        fits = Mux(layer.same_channels == 0, job.loads == 1, covers)
        wanted = {
            "values": (layer.rows, row_words(beats, job.values_narrow), Const(1)),
            "other": (layer.rows, row_words(beats, job.other_narrow), has_other(layer.op)),
            "outputs": (
                Mux(mean, 1, layer.rows),
                row_words(beats, layer.narrow) + has_factors(layer.op),
                Const(1),
            ),
            "numbers": (
                Mux(layer.loads_channels, job.loads, 0),
                beats * channel,
                layer.loads_table | layer.loads_channels,
            ),
        }
        of_rows = Signal(_PRODUCT_BITS + _COUNT_BITS)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.done.eq(1)
                with m.If(self.start):
                    m.d.comb += self.done.eq(0)
                    m.d.sync += bad.eq(0)
                    m.next = "LOADS"
            self._multiply(m, multiplier, "LOADS", layer.same_channels, job.loads, "LOADED")
            with m.State("LOADED"):
                m.d.sync += bad.eq(layer.loads_channels & ~fits)
                m.next = "VALUES"
            names = list(wanted)
            for name, after in zip(names, [*names[1:], "idle"], strict=True):
                count, each, enabled = wanted[name]
                state, pieces = name.upper(), getattr(job, name)
                self._multiply(m, multiplier, state, count, each, f"{state}_WANTED")
                with m.State(f"{state}_WANTED"):
                    extra = Mux(layer.loads_table, table, 0) if name == "numbers" else 0
                    m.d.sync += of_rows.eq(product + extra)
                    m.next = f"{state}_{LOOPS[0].upper()}"
                held: Value = pieces.run
                for loop, following in zip(LOOPS, [*LOOPS[1:], "held"], strict=True):
                    self._multiply(
                        m, multiplier, f"{state}_{loop.upper()}", getattr(pieces, loop).count,
                        held, f"{state}_{following.upper()}",
                    )  # fmt: skip
                    held = product[:_PRODUCT_BITS]
                with m.State(f"{state}_HELD"):
                    with m.If(enabled & (product != of_rows)):
                        m.d.sync += bad.eq(1)
                    m.next = after.upper()
        m.d.comb += self.status.eq(self._status(bad))
        return m

    @staticmethod
    def _multiply(
        m: Module, multiplier: SerialMultiplier, state: str, a: Value, b: Value, following: str
    ) -> None:
        """Two states: start, and wait for the product."""
        with m.State(state):
            m.d.comb += [multiplier.start.eq(1), multiplier.a.eq(a), multiplier.b.eq(b)]
            m.next = f"{state}_ENDS"
        with m.State(f"{state}_ENDS"), m.If(multiplier.done):
            m.next = following

    def _status(self, bad: Value) -> Value:
        config, job = self._config, self.job
        layer = job.operation
        shift = config.bus_bytes.bit_length() - 1
        top = 1 << config.address_bits
        zero = (layer.rows == 0) | (layer.channels == 0) | (layer.length == 0)
        zero = zero | (layer.epsilon == 0) | (layer.length > layer.channels)
        last = max(op.value for op in VectorOp)  # type: ignore[attr-defined]
        addresses: Value = job.record >= top // GRANULE_BYTES
        for name in ("values", "other", "numbers", "outputs"):
            address = getattr(job, name).address
            addresses = addresses | (address[:shift] != 0) | (address >= top)
        ascending = [
            (zero | bad | (Value.cast(layer.op) > last), RunStatus.SHAPE),
            (layer.channels > config.row_max, RunStatus.BUFFER),
            (addresses, RunStatus.ADDRESS),
        ]
        status = Value.cast(RunStatus.OK)
        for condition, code in reversed(ascending):
            status = Mux(condition, code, status)
        return status
