"""What the accelerator's logic spends: operations counted, at energies that were published."""

import math
from dataclasses import dataclass

from hwsim.measure.document import Logic
from hwsim.program import Program
from rtl import AcceleratorConfig

__all__ = ["ENERGIES", "Figure", "logic_of", "sram_pj"]

_HOROWITZ = "M. Horowitz, Computing's energy problem, ISSCC 2014: 45 nm, 0.9 V"


@dataclass(frozen=True)
class Figure:
    """Energy of one operation in picojoules, and where that is from."""

    pj: float
    source: str


#: The energies that everything is made of, as published: not scaled to another process.
ENERGIES = {
    "multiply, 8 bits": Figure(0.2, _HOROWITZ),
    "add, 8 bits": Figure(0.03, _HOROWITZ),
    "add, 32 bits": Figure(0.1, _HOROWITZ),
    "SRAM of 8 KiB, 64 bits": Figure(10.0, _HOROWITZ),
    "register, 8 bits": Figure(0.03, "assumed: as an addition of 8 bits"),
}
_MULTIPLY, _ADD8, _ADD32, _SRAM, _REGISTER = (figure.pj for figure in ENERGIES.values())
_SRAM_BYTES, _WORD_BYTES = 8 << 10, 8
_SUM_BYTES = 4
#: Every weight passes a shadow register into the tile.
_TILE_REGISTERS = 2


def sram_pj(nbytes: int) -> float:
    """Energy of a byte that is read from, or written to, a static RAM of so many bytes.

    It grows with the square root of the size, as bit lines and word lines do: of the same source,
    32 KiB take 20 pJ for 64 bits (here 20), and 1 MiB 100 (here 113). Smaller ones than 8 KiB are
    an extrapolation.

    Examples
    --------
    >>> sram_pj(8 << 10), sram_pj(32 << 10)
    (1.25, 2.5)
    """
    return _SRAM / _WORD_BYTES * math.sqrt(nbytes / _SRAM_BYTES)


def logic_of(
    program: Program,
    config: AcceleratorConfig,
    *,
    busy_cycles: int,
    bytes_read: int,
    bytes_written: int,
) -> Logic:
    """Energy of a run's logic by part: operations of the data path, each at its figure.

    ``array``: a multiplication and an addition of 32 bits for every product of a real weight;
    registers of a vector and of sums in each busy cycle, and two for each weight. ``buffers``:
    beats that enter and leave the queue behind the bus, activations that enter their buffer, a
    vector from it and a word of sums from and to the accumulators in each busy cycle, outputs to
    and from theirs. ``decoder``: a look-up of a byte and a sign for every weight of a codebook, an
    addition for every weight of a group.

    Left out: control, descriptors, clock trees, wires, leakage, bit-planes, and requantisation.

    Parameters
    ----------
    program : Program
    config : AcceleratorConfig
    busy_cycles, bytes_read, bytes_written : int
        Of the run.
    """
    macs = sum(layer.macs for layer in program.layers)
    stored = [layer.weights.entry.geometry for layer in program.layers if layer.weights]
    looked_up = sum(g.weights for g in stored if g.codebook)
    grouped = sum(g.weights for g in stored if g.group)
    sums = config.rows * _SUM_BYTES
    # A bank has two bytes of every codeword, of two books.
    bank = sram_pj(2 * 2 * 2**config.index_bits_max)
    activations = sum(layer.activation_bytes for layer in program.layers)
    return Logic(
        buffers=2 * bytes_read * sram_pj(config.fifo_bytes)
        + (activations + busy_cycles * config.columns) * sram_pj(config.input_bytes)
        + 2 * busy_cycles * sums * sram_pj(config.accumulators * sums)
        + 2 * bytes_written * sram_pj(config.output_bytes),
        decoder=looked_up * (bank + _ADD8) + grouped * _ADD8,
        array=macs * (_MULTIPLY + _ADD32)
        + busy_cycles * (config.columns + sums) * _REGISTER
        + sum(g.weights for g in stored) * _TILE_REGISTERS * _REGISTER,
    )
