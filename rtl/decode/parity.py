"""Parity signs: ``d - 1`` stored signs of every sub-vector into ``d`` signs."""

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.config import StreamerConfig

__all__ = ["ParityGear"]


class ParityGear(wiring.Component):
    """Gear box from beats of packed signs to one full sign beat per step.

    The ``W / d`` sub-vectors of a step need ``W - W / d`` bits, so ``d`` steps use up ``d - 1``
    beats. In phase p (the step modulo d), the first ``p W / d`` of them are the top of the beat
    before, the others the bottom of the current one; phase ``d - 1`` needs no new beat. That is
    a shift by one of ``d`` multiples of ``W / d``, one 2:1 multiplexer per bit and factor of two.
    Every chunk starts in phase 0.

    Beats of all other methods pass unchanged. The result takes two cycles of ``enable``:
    shifting, then spreading the fields and adding the parity.

    Parameters
    ----------
    config : StreamerConfig

    Members
    -------
    beat : In(W)
        Bus beat of this step.
    missing : In(1)
        There is none: zeros instead (last phase, or behind the end of the signs).
    parity : In(1)
        ``beat`` holds parity signs.
    log2_d : In(3)
        Sub-vector length of the layer.
    phase : In(range(d_max))
        Step of the chunk, modulo d.
    taken : In(1)
        The step is made in this cycle.
    enable : In(1)
        Advance the output registers.
    signs : Out(W)
        The sign of every weight of the step, or the beat as it was.
    """

    def __init__(self, config: StreamerConfig) -> None:
        self._config = config
        super().__init__(
            {
                "beat": In(config.bus_bits),
                "missing": In(1),
                "parity": In(1),
                "log2_d": In(3),
                "phase": In(range(config.d_max)),
                "taken": In(1),
                "enable": In(1),
                "signs": Out(config.bus_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        config = self._config
        m = Module()
        beat = Signal(config.bus_bits)
        before = Signal(config.bus_bits)
        packed = Signal(config.bus_bits)
        packed_parity = Signal()
        packed_log2_d = Signal(3)
        m.d.comb += beat.eq(Mux(self.missing, 0, self.beat))
        with m.If(self.taken):
            m.d.sync += before.eq(beat)
        with m.If(self.enable):
            m.d.sync += [
                packed.eq(self._shifted(m, beat, before)),
                packed_parity.eq(self.parity),
                packed_log2_d.eq(self.log2_d),
                self.signs.eq(packed),
            ]
            with m.If(packed_parity), m.Switch(packed_log2_d):
                for log2_d in self._log2_ds():
                    with m.Case(log2_d):
                        m.d.sync += self.signs.eq(self._spread(packed, 1 << log2_d))
        return m

    def _log2_ds(self) -> range:
        return range(self._config.d_min.bit_length() - 1, self._config.d_max.bit_length())

    def _shifted(self, m: Module, beat: Value, before: Value) -> Value:
        """``beat`` moved up by ``phase`` units of ``W / d``, the top of ``before`` below it."""
        width = self._config.bus_bits
        log2_d_max = self._config.d_max.bit_length() - 1
        units = Signal(log2_d_max)  # of W / d_max
        with m.If(self.parity), m.Switch(self.log2_d):
            for log2_d in self._log2_ds():
                with m.Case(log2_d):
                    m.d.comb += units.eq(self.phase[:log2_d] << (log2_d_max - log2_d))
        window = Cat(before, beat)
        for level in reversed(range(log2_d_max)):
            # Bits that the levels to come can still reach: W, and what they shift in.
            keep = width + (width >> log2_d_max) * ((1 << level) - 1)
            step = (width >> log2_d_max) << level
            moved = Signal(keep, name=f"moved_{level}")
            m.d.comb += moved.eq(Mux(units[level], window[-keep - step : -step], window[-keep:]))
            window = moved
        return window

    def _spread(self, packed: Value, d: int) -> Value:
        """Fields of ``d - 1`` bits, each with its exclusive or behind it."""
        fields = [packed[at : at + d - 1] for at in range(0, (len(packed) // d) * (d - 1), d - 1)]
        return Cat(Cat(field, field.xor()) for field in fields)
