"""Descriptor check: a layer that this instance cannot run is refused before it reads a byte."""

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.config import StreamerConfig
from rtl.decode.codes import CODE_BITS_MAX
from rtl.descriptor import DESCRIPTOR, CodebookMode, Method, Status
from vq.container import GRANULE_BYTES

__all__ = ["VERDICT", "DescriptorChecker"]

#: A descriptor with the outcome of its checks.
VERDICT = data.StructLayout({"status": Status, "descriptor": DESCRIPTOR})


class DescriptorChecker(wiring.Component):
    """Compare each descriptor with the limits of the instance, one in three cycles.

    The stream length is recomputed from method, d, b and chunks: a descriptor whose lengths
    contradict each other would otherwise shift the data of every later layer.

    Parameters
    ----------
    config : StreamerConfig

    Members
    -------
    descriptor : In(stream.Signature(DESCRIPTOR))
        From the host.
    verdict : Out(stream.Signature(VERDICT))
        The same descriptor and its status, in order. If several checks fail, the first one in
        the order of :class:`~rtl.descriptor.Status` is reported.
    """

    def __init__(self, config: StreamerConfig) -> None:
        self._config = config
        super().__init__(
            {
                "descriptor": In(stream.Signature(DESCRIPTOR)),
                "verdict": Out(stream.Signature(VERDICT)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        layer = Signal(DESCRIPTOR)
        # b chunks and d (chunks - 1) need 36 bits; one register cuts the multiplier's path.
        index_granules = Signal(36)
        sign_granules = Signal(36)
        # What KEEP would use. A codebook in ROM is there from the start, and for ever.
        book = Signal(data.StructLayout({"valid": 1, "log2_d": 8, "index_bits": 8}))
        fixed = self._config.codebook
        if fixed is not None:
            k, d = (size.bit_length() - 1 for size in fixed.shape)
            m.d.comb += book.eq(book.shape().const({"valid": 1, "log2_d": d, "index_bits": k}))

        quantised = Signal()
        loads = Signal()
        codes = Signal()
        parity = Signal()
        signed = Signal()
        expected = index_granules + Mux(signed, sign_granules, 0)
        bad_length = self._bad_length(layer, quantised, parity, codes, expected)
        if not self._config.int8_only:
            m.d.comb += [
                codes.eq(layer.method == Method.CODES),
                parity.eq(layer.method == Method.SSVQ_PARITY),
                signed.eq((layer.method == Method.SSVQ) | parity),
                quantised.eq(signed | (layer.method == Method.VQ)),
            ]
        m.d.comb += [
            loads.eq(quantised & (layer.codebook_mode == CodebookMode.LOAD)),
            self.verdict.p.descriptor.eq(layer),
            self.verdict.p.status.eq(
                self._status(layer, quantised, codes, loads, bad_length, book)
            ),
        ]

        with m.FSM():
            with m.State("ACCEPT"):
                m.d.comb += self.descriptor.ready.eq(1)
                with m.If(self.descriptor.valid):
                    m.d.sync += layer.eq(self.descriptor.payload)
                    m.next = "MULTIPLY"
            with m.State("MULTIPLY"):
                m.d.sync += [
                    index_granules.eq(
                        sum(Mux(layer.index_bits[i], layer.chunks << i, 0) for i in range(4))
                    ),
                    sign_granules.eq(
                        ((layer.chunks - 1)[:32] << layer.log2_d[:3])
                        - Mux(parity, (layer.chunks - 1)[:32], 0)
                        + Mux(parity, layer.last_sign_granules, layer.last_granules)
                    ),
                ]
                m.next = "JUDGE"
            with m.State("JUDGE"):
                m.d.comb += self.verdict.valid.eq(1)
                with m.If(self.verdict.ready):
                    if fixed is None:
                        with m.If(loads):
                            m.d.sync += [
                                book.valid.eq(self.verdict.p.status == Status.OK),
                                book.log2_d.eq(layer.log2_d),
                                book.index_bits.eq(layer.index_bits),
                            ]
                    m.next = "ACCEPT"
        return m

    def _status(
        self,
        layer: data.View,
        quantised: Value,
        codes: Value,
        loads: Value,
        bad_length: Value,
        book: data.View,
    ) -> Value:
        """Outcome of the checks, the first failing one in the order of the codes."""
        config = self._config
        log2_d_min, log2_d_max = config.d_min.bit_length() - 1, config.d_max.bit_length() - 1
        zeros = codes & (layer.codebook_mode == CodebookMode.ZEROS)
        ascending = [
            (~quantised & ~codes & (layer.method != Method.INT8), Status.METHOD),
            (
                quantised & ((layer.log2_d < log2_d_min) | (layer.log2_d > log2_d_max)),
                Status.SUB_VECTOR,
            ),
            (
                (quantised & ((layer.index_bits == 0) | (layer.index_bits > config.index_bits_max)))
                | (codes & ((layer.index_bits < 2) | (layer.index_bits > CODE_BITS_MAX))),
                Status.INDEX_BITS,
            ),
            (bad_length, Status.LENGTH),
            (
                self._bad_region(layer.stream_address, layer.stream_granules)
                | (
                    (loads | zeros)
                    & self._bad_region(layer.codebook_address, layer.codebook_granules)
                ),
                Status.ADDRESS,
            ),
            (self._bad_codebook(layer, quantised, loads, zeros, book), Status.CODEBOOK),
        ]
        status = Value.cast(Status.OK)
        for condition, code in reversed(ascending):
            status = Mux(condition, code, status)
        return status

    def _bad_length(
        self,
        layer: data.View,
        quantised: Value,
        parity: Value,
        codes: Value,
        expected_granules: Value,
    ) -> Value:
        d = Const(1, 8) << layer.log2_d[:3]
        # ceil(R (d - 1) / 512) follows from ceil(R d / 512) but for one.
        bad_signs = (
            (layer.last_sign_granules == 0)
            | (layer.last_sign_granules >= d)
            | (
                (layer.last_sign_granules != layer.last_granules)
                & (layer.last_sign_granules + 1 != layer.last_granules)
            )
        )
        bad_groups = (layer.codebook_mode == CodebookMode.ZEROS) & (
            (layer.group_beats == 0) | (layer.block_beats == 0)
        )
        bad_last = (layer.last_granules == 0) | (layer.last_granules > d)
        return (
            (layer.stream_granules == 0)
            | (quantised & bad_last)
            | (parity & bad_signs)
            | (codes & bad_groups)
            | (
                (quantised | codes)
                & ((layer.chunks == 0) | (layer.stream_granules != expected_granules))
            )
        )

    def _bad_region(self, address: Value, granules: Value) -> Value:
        shift = (GRANULE_BYTES - 1).bit_length()
        top = 1 << (self._config.address_bits - shift)
        return (address[:shift] != 0) | ((address[shift:] + granules) > top)

    def _bad_codebook(
        self, layer: data.View, quantised: Value, loads: Value, zeros: Value, book: data.View
    ) -> Value:
        # k d bytes, padded to whole granules, must not pass the last row of the codebook RAM.
        capacity = Const(1 << self._config.index_bits_max, 11) << layer.log2_d[:3]
        rows_fit = (layer.codebook_granules != 0) & (
            Cat(Const(0, 6), layer.codebook_granules) <= capacity
        )
        kept = (
            book.valid
            & (book.log2_d == layer.log2_d)
            & (book.index_bits == layer.index_bits)
            & (layer.codebook_mode == CodebookMode.KEEP)
        )
        without = layer.codebook_mode == CodebookMode.NONE
        has_zeros = zeros & (layer.codebook_granules != 0)
        there = kept if self._config.codebook is not None else (loads & rows_fit) | kept
        return Mux(quantised, ~there, ~(without | has_zeros))
