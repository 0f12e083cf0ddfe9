"""Cycles of an accelerator and clocks of its memory."""

from fractions import Fraction
from math import lcm

__all__ = ["Clocks"]


class Clocks:
    """Converts between two clocks that both begin at 0, with a latency on the way in.

    A request accepted in cycle c is there at the end of that cycle, and with the controller after
    the latency; it counts from the first memory clock that begins then or later. Data whose last
    clock is k are at hand at its end, for the first cycle that begins then or later.

    Parameters
    ----------
    clock_mhz : Fraction
        Cycles of the accelerator per microsecond.
    tCK_ps : Fraction
        A clock of the memory.
    latency_ns : Fraction
        Of the controller.
    """

    def __init__(self, clock_mhz: Fraction, tCK_ps: Fraction, latency_ns: Fraction) -> None:
        cycle, latency = 1_000_000 / clock_mhz / tCK_ps, latency_ns * 1000 / tCK_ps
        # In parts of a clock of which all three are whole numbers.
        self._clock = lcm(cycle.denominator, latency.denominator)
        self._cycle, self._latency = int(cycle * self._clock), int(latency * self._clock)

    def arrival(self, cycle: int) -> int:
        """First clock in which the controller has what was accepted in a cycle."""
        return -(-((cycle + 1) * self._cycle + self._latency) // self._clock)

    def begun(self, cycle: int) -> int:
        """Clocks of the memory that are over when a cycle begins."""
        return cycle * self._cycle // self._clock

    def cycle(self, clock: int) -> int:
        """First cycle that begins when ``clock`` clocks of the memory are over, or later."""
        return -(-clock * self._clock // self._cycle)
