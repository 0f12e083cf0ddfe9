"""What every memory model does, for the AXI slave of a simulation and for a cycle model alike."""

from typing import Any, Protocol

from hwsim.memory.energy import Energy

__all__ = ["MemoryModel"]


class MemoryModel(Protocol):
    """Timing of a memory behind one read port and one write port.

    Data return in the order of the requests. Cycles of successive calls of :meth:`request`,
    :meth:`write` and :meth:`advance` must not decrease. A model may serve what comes later before
    what came earlier, so it decides only what later calls cannot change: it has to know how far
    time has gone, from these calls, or from a caller that lets it ``settle`` something.
    """

    def request(self, cycle: int, address: int, beats: int, beat_bytes: int) -> None:
        """Accept a burst of ``beats`` beats of ``beat_bytes`` bytes in ``cycle``."""

    def advance(self, cycle: int) -> None:
        """Learn that nothing is requested or written in cycles before ``cycle`` any more."""

    def ready_cycle(self, *, settle: bool = False) -> int | None:
        """First cycle in which the next beat may be transferred.

        None if no beat is requested or its time is not decided; in a simulation that advances cycle
        by cycle, a beat is always decided by the cycle in which it is due. With ``settle``, the
        caller promises that nothing is requested or written before the cycle that is returned,
        and None means that no beat is requested.
        """

    def pop(self) -> None:
        """Count the next beat as transferred; its cycle must be decided."""

    def write(self, cycle: int, address: int, nbytes: int) -> int:
        """Take data that the bus transferred in ``cycle``; return a ticket for their response.

        Tickets must be asked for in the order of the writes; some may be left out.
        """

    def written_cycle(self, ticket: int, *, settle: bool = False) -> int | None:
        """Cycle in which written data are in the memory's care, None if that is not decided.

        With ``settle``, as :meth:`ready_cycle`, and never None.
        """

    def energy(self, cycle: int) -> Energy | None:
        """Energy up to ``cycle``, which is an :meth:`advance`; None if the model knows none."""

    def describe(self) -> dict[str, Any]:
        """Name and settings, as reports print them."""
