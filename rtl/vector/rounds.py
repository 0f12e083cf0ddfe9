"""Micro-programs: the rounds through the multipliers that make up each operation."""

from dataclasses import dataclass
from typing import Any

from amaranth import Cat, Module, Signal, Value
from amaranth.lib import enum

from rtl.vector.layer import VectorOp

__all__ = ["PROGRAMS", "ROUNDS_MAX", "Program", "Round", "choose_round"]


class Round(enum.Enum, shape=4):  # type: ignore[call-arg]
    """What a beat is multiplied by, in one way through the lanes.

    ``x`` is the beat, ``y`` its partner, ``v`` the result of the round before, or ``x`` in the
    first one; ``bias``, ``multiplier``, ``shift`` are those of the channel.
    """

    #: ``(x · row.scale - row.offset) >> row.shift``
    ROW = 0
    #: ``x · own + y · other`` by ``layer.shift``, or by the channel's numbers and no shift
    PAIR = 1
    #: ``x · y``
    PRODUCT = 2
    #: ``(256 · value + difference · rest) >> layer.shift`` of the entry that ``x`` finds
    TABLE = 3
    #: the entry that ``v`` finds, by as many places as octaves
    POWER = 4
    #: ``((v + bias) · multiplier) >> shift``
    CHANNEL = 5
    #: ``(v · own) >> layer.shift``
    FIXED = 6
    #: ``(v · 127) >> 15``
    CODE = 7
    #: ``(x · row.scale) >> row.shift``, x unsigned
    SHARE = 8
    #: ``x + bias``, the bias of the first row being 0
    SUM = 9
    #: ``(bias · row.scale) >> row.shift``
    MEAN = 10


@dataclass(frozen=True)
class Program:
    """Rounds of an operation.

    Attributes
    ----------
    first : tuple of Round
        Of every beat of every row.
    second : tuple of Round
        Of every beat once more, behind all of its row (of all rows for a mean): only these give
        outputs then, and the results of the first ones are kept.
    whole : bool
        A row is mapped when it is complete, by numbers of its own.
    drains : bool
        A row starts when the one before has left the lanes.
    """

    first: tuple[Any, ...]
    second: tuple[Any, ...] = ()
    whole: bool = False
    drains: bool = False


_NORM = Program((Round.ROW, Round.CHANNEL), whole=True)
PROGRAMS: dict[Any, Program] = {
    VectorOp.NARROW: Program((Round.FIXED,)),
    VectorOp.ADD: Program((Round.PAIR,)),
    VectorOp.PRODUCT: Program((Round.PRODUCT, Round.FIXED)),
    VectorOp.FUNCTION: Program((Round.TABLE,)),
    VectorOp.ROTARY: Program((Round.PAIR, Round.FIXED)),
    VectorOp.ROWS: Program((Round.ROW,), whole=True),
    VectorOp.RMS_NORM: _NORM,
    VectorOp.LAYER_NORM: _NORM,
    VectorOp.SHARES: Program((Round.ROW, Round.POWER, Round.CODE), whole=True),
    VectorOp.SHARES_WIDE: Program(
        (Round.ROW, Round.POWER), (Round.SHARE,), whole=True, drains=True
    ),
    VectorOp.MEAN: Program((Round.SUM,), (Round.MEAN, Round.FIXED), drains=True),
}
#: A beat comes back to the first register of the lanes as many cycles after it entered, so that
#: beats that enter every so many cycles as they have rounds never meet one that returns.
RETURN_CYCLES = 5
ROUNDS_MAX = max(len(p.first) for p in PROGRAMS.values())
assert all((RETURN_CYCLES * j) % n for n in range(2, ROUNDS_MAX + 1) for j in range(1, n)), (
    "a beat would return when another enters"
)


def choose_round(m: Module, op: Value, second: Value, number: Value) -> tuple[Signal, Signal]:
    """Which round it is, and whether it is the last one."""
    kind, last = Signal(Round), Signal()
    with m.Switch(Cat(number, second, Value.cast(op))):
        for one, program in PROGRAMS.items():
            for later, rounds in enumerate((program.first, program.second)):
                for i, found in enumerate(rounds):
                    pattern = f"{one.value:04b}{later}{i:02b}"
                    with m.Case(pattern):
                        m.d.comb += [kind.eq(found), last.eq(i == len(rounds) - 1)]
    return kind, last
