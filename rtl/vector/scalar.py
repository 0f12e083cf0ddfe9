"""Scalar stage: from what a row comes to, to the numbers that each of its values is mapped by."""

from amaranth import Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.bus.queue import StreamQueue
from rtl.vector.config import VectorConfig
from rtl.vector.layer import FACTOR, VECTOR_LAYER, VectorOp
from rtl.vector.reduce import reduced_layout
from rtl.vector.serial import QUOTIENT_BITS, ROOT_BITS, Reciprocal, Root

__all__ = ["GUARD_BITS", "ROW_NUMBERS", "ScalarUnit"]

#: A row is mapped by ``(x · scale - offset) >> shift``.
ROW_NUMBERS = data.StructLayout({"scale": signed(32), "offset": signed(48), "shift": 6})
#: A row over its deviation is in steps of 2**-18, and its shift may be one to the left by 3.
_NORM_BITS, _NORM_LEFT = 18, 3
#: What a mean is finer than its inputs, in bits.
GUARD_BITS = 8
#: Of the energy of a row: less than 2**62, with room to shift it to the top.
_ENERGY_BITS = 64


class ScalarUnit(wiring.Component):
    """Make the numbers of one row after another, by one multiplier, one division and one root.

    ==================  ==================================================  =======  ========
    operation           numbers of a row                                    cycles   factor
    ==================  ==================================================  =======  ========
    ROWS                ``127 / most``                                      17       ``most``
    norms               ``N / deviation``, ``total / deviation``            45 to 54
    softmax             exponent of the greatest                            5
    softmax, afterwards ``1 / tally``                                       17       ``1 / tally``
    mean                ``1 / tally``                                       17
    rotation by halves  none: the row is complete                           1
    ==================  ==================================================  =======  ========

    Parameters
    ----------
    config : VectorConfig

    Members
    -------
    layer : In(VECTOR_LAYER)
        Constant from the first row to the last one.
    reduced : In(stream.Signature(reduced_layout(config)))
        One for each row that comes.
    tally : In(stream.Signature(config.total_bits))
        Of a row that has been mapped: the sum of its exponentials, or of its codes; for a mean,
        how many rows there were. Positive.
    rows : Out(stream.Signature(ROW_NUMBERS))
        One for each ``reduced``.
    second : Out(stream.Signature(ROW_NUMBERS))
        For the second pass, one for each ``tally`` that is not of codes.
    factors : Out(stream.Signature(FACTOR))
    idle : Out(1)
        Nothing is under way but rows and factors that wait.
    """

    def __init__(self, config: VectorConfig) -> None:
        self._config = config
        super().__init__(
            {
                "layer": In(VECTOR_LAYER),
                "reduced": In(stream.Signature(reduced_layout(config))),
                "tally": In(stream.Signature(config.total_bits)),
                "rows": Out(stream.Signature(ROW_NUMBERS)),
                "second": Out(stream.Signature(ROW_NUMBERS)),
                "factors": Out(stream.Signature(FACTOR)),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, layer = self._config, self.layer
        m.submodules.reciprocal = reciprocal = Reciprocal(config.total_bits - 1)
        m.submodules.root = root = Root()
        m.submodules.queue = factors = StreamQueue(FACTOR, 4)
        wiring.connect(m, factors.get, wiring.flipped(self.factors))
        for numbers in (self.rows, self.second):
            with m.If(numbers.ready):
                m.d.sync += numbers.valid.eq(0)

        # What the row has come to: a magnitude and its sign, and the sum of squares.
        whole = Signal(config.total_bits)
        negative = Signal()
        squares = Signal(config.squares_bits)
        of_second = Signal()
        a, b = Signal(32), Signal(16)
        product = Signal(48)
        m.d.sync += product.eq(a * b)
        energy = Signal(_ENERGY_BITS)
        step = Signal(3)
        doubled = Signal(6)  # pairs of bits by which the energy has been shifted
        quotient = reciprocal.quotient
        rows, factor = self.rows.payload, factors.put.payload

        norm = Signal()
        shares = Signal()
        m.d.comb += [
            norm.eq((layer.op == VectorOp.RMS_NORM) | (layer.op == VectorOp.LAYER_NORM)),
            shares.eq((layer.op == VectorOp.SHARES) | (layer.op == VectorOp.SHARES_WIDE)),
        ]
        most, total = self.reduced.p.most, self.reduced.p.total
        chosen = Mux(norm, total, most)
        takes_second = self.tally.valid & ~self.second.valid & factors.put.ready
        takes_row = self.reduced.valid & ~self.rows.valid & factors.put.ready & ~takes_second

        with m.FSM() as states:
            m.d.comb += self.idle.eq(states.ongoing("IDLE"))
            with m.State("IDLE"):
                m.d.comb += [
                    self.tally.ready.eq(takes_second),
                    self.reduced.ready.eq(takes_row),
                ]
                m.d.sync += [of_second.eq(takes_second), step.eq(0), doubled.eq(0)]
                with m.If(takes_second):
                    m.d.comb += [reciprocal.start.eq(1), reciprocal.value.eq(self.tally.payload)]
                    m.next = "DIVIDES"
                with m.Elif(takes_row):
                    m.d.sync += [
                        whole.eq(Mux(chosen < 0, -chosen, chosen)),
                        negative.eq(chosen < 0),
                        squares.eq(self.reduced.p.squares),
                        energy.eq(layer.epsilon),
                    ]
                    with m.If(layer.op == VectorOp.RMS_NORM):
                        m.d.sync += whole.eq(0)
                    with m.If(norm):
                        m.next = "ENERGY"
                    with m.Elif(shares):
                        m.next = "SCALES"
                    with m.Elif(layer.op == VectorOp.ROWS):
                        m.d.comb += [
                            reciprocal.start.eq(1),
                            reciprocal.value.eq(Mux(most == 0, 1, most)),
                        ]
                        m.next = "DIVIDES"
                    with m.Else():
                        m.d.sync += self.rows.valid.eq(1)
            with m.State("ENERGY"):  # N · squares - total · total; a product is there two steps on
                m.d.sync += step.eq(step + 1)
                with m.Switch(step):
                    with m.Case(0):
                        m.d.sync += [a.eq(squares[:32]), b.eq(layer.channels)]
                    with m.Case(1):
                        m.d.sync += a.eq(squares[32:])
                    with m.Case(2):
                        m.d.sync += [a.eq(whole), b.eq(whole[:16]), energy.eq(energy + product)]
                    with m.Case(3):
                        m.d.sync += [b.eq(whole[16:]), energy.eq(energy + (product << 32))]
                    with m.Case(4):
                        m.d.sync += energy.eq(energy - product)
                    with m.Default():
                        m.d.sync += energy.eq(energy - (product << 16))
                        m.next = "ALIGNS"
            with m.State("ALIGNS"):
                with m.If(energy[-8:] == 0):
                    m.d.sync += [energy.eq(energy << 8), doubled.eq(doubled + 4)]
                with m.Elif(energy[-2:] == 0):
                    m.d.sync += [energy.eq(energy << 2), doubled.eq(doubled + 1)]
                with m.Else():
                    m.d.comb += [root.start.eq(1), root.value.eq(energy[-2 * ROOT_BITS :])]
                    m.next = "ROOT"
            with m.State("ROOT"), m.If(root.done):
                m.d.comb += [reciprocal.start.eq(1), reciprocal.value.eq(root.root)]
                m.next = "DIVIDES"
            with m.State("DIVIDES"), m.If(reciprocal.done):
                m.d.sync += step.eq(0)
                m.next = "IDLE"
                with m.If(of_second):
                    self._after_tally(m, reciprocal, factors)
                with m.Elif(norm):
                    m.next = "SCALES"
                with m.Else():
                    places = (QUOTIENT_BITS - reciprocal.length)[:4]
                    m.d.comb += [
                        factors.put.valid.eq(1),
                        factor.factor.eq(Mux(whole == 0, 1, whole)[:QUOTIENT_BITS] << places),
                        factor.shift.eq(QUOTIENT_BITS + places),
                    ]
                    m.d.sync += [
                        self.rows.valid.eq(1),
                        rows.scale.eq((quotient << 7) - quotient),
                        rows.offset.eq(0),
                        rows.shift.eq(QUOTIENT_BITS - 1 + reciprocal.length),
                    ]
            with m.State("SCALES"):  # by a reciprocal, or by the exponent
                m.d.sync += [step.eq(step + 1), b.eq(Mux(norm, quotient, layer.own))]
                with m.Switch(step):
                    with m.Case(0):
                        m.d.sync += a.eq(layer.channels)
                    with m.Case(1):
                        m.d.sync += a.eq(whole)
                    with m.Case(2):
                        m.d.sync += [
                            rows.scale.eq(Mux(norm, product << _NORM_LEFT, -layer.own)),
                            # Every two bits that the energy was shifted are one of the root.
                            rows.shift.eq(
                                Mux(norm, self._norm_shift(doubled), layer.shift),
                            ),
                        ]
                    with m.Default():
                        offset = Mux(norm, product << _NORM_LEFT, product)
                        # Of a softmax: greatest minus value, so both signs change.
                        m.d.sync += [
                            rows.offset.eq(Mux(negative ^ shares, -offset, offset)),
                            self.rows.valid.eq(1),
                        ]
                        m.next = "IDLE"
        return m

    @staticmethod
    def _norm_shift(doubled: Value) -> Value:
        """Shift of ``d · r / 2**(30 - 18 + k / 2)``: the root was of the energy over ``2**k``."""
        half_k = (_ENERGY_BITS - 2 * ROOT_BITS) // 2 - doubled
        return 2 * (QUOTIENT_BITS) - _NORM_BITS + half_k + _NORM_LEFT

    def _after_tally(self, m: Module, reciprocal: Reciprocal, factors: StreamQueue) -> None:
        """One over a sum: the factor of a row of codes, or what its values are multiplied by."""
        factor, second = factors.put.payload, self.second.payload
        with m.If(self.layer.op == VectorOp.SHARES):
            m.d.comb += [
                factors.put.valid.eq(1),
                factor.factor.eq(reciprocal.quotient),
                factor.shift.eq(7 + reciprocal.length),
            ]
        with m.Else():
            below = QUOTIENT_BITS - 1 - GUARD_BITS
            m.d.sync += [
                self.second.valid.eq(1),
                second.scale.eq(reciprocal.quotient),
                second.offset.eq(0),
                second.shift.eq(
                    Mux(self.layer.op == VectorOp.MEAN, below, Const(0)) + reciprocal.length
                ),
            ]
