"""Multiplier array: one vector of activations times one tile of weights, every cycle."""

from amaranth import Module, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl.compute.config import ArrayConfig
from rtl.compute.tile import tile_layout

__all__ = ["MacArray", "sums_layout"]


def sums_layout(config: ArrayConfig) -> data.ArrayLayout:
    """One sum of products of two int8 numbers for each output."""
    return data.ArrayLayout(signed(16 + (config.columns - 1).bit_length()), config.rows)


class MacArray(wiring.Component):
    """``sums[o] = Σ_c weights[o][c] · activations[c]``, two cycles later.

    Parameters
    ----------
    config : ArrayConfig

    Members
    -------
    enable : In(1)
        The pipeline advances.
    activations : In(ArrayLayout(signed(8), config.columns))
    weights : In(tile_layout(config))
    sums : Out(sums_layout(config))
    """

    def __init__(self, config: ArrayConfig) -> None:
        self._config = config
        super().__init__(
            {
                "enable": In(1),
                "activations": In(data.ArrayLayout(signed(8), config.columns)),
                "weights": In(tile_layout(config)),
                "sums": Out(sums_layout(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows, columns = self._config.rows, self._config.columns
        with m.If(self.enable):
            for o in range(rows):
                terms: list[Value] = []
                for c in range(columns):
                    product = Signal(signed(16), name=f"product_{o}_{c}")
                    m.d.sync += product.eq(self.weights[o][c] * self.activations[c])
                    terms.append(product)
                while len(terms) > 1:  # a balanced tree
                    pairs = zip(terms[::2], terms[1::2], strict=True)
                    terms = [a + b for a, b in pairs]
                m.d.sync += self.sums[o].eq(terms[0])
        return m
