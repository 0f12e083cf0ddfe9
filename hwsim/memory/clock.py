"""The clock of an accelerator, which its memory has to know."""

import re
from fractions import Fraction

from hwsim.memory import parse_memory
from vq.errors import ConfigError

__all__ = ["memory_at"]

_GIVEN = re.compile(r"(?:^|[:,])clock_mhz=([^,]*)")
_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?")


def memory_at(memory: str, clock_mhz: str) -> str:
    """The text of a memory behind an accelerator of some clock.

    The clock is no setting of the hardware: it relates the nanoseconds of a DRAM to cycles. An
    ideal memory counts in cycles, so nothing changes there.

    Parameters
    ----------
    memory : str
        See :func:`hwsim.memory.parse_memory`.
    clock_mhz : str
        A number, as on a command line.

    Raises
    ------
    ConfigError
        If that is no number above 0, the memory's text says another one, or is wrong itself.

    Examples
    --------
    >>> memory_at("ddr4-2400", "800"), memory_at("hbm2:channels=4", "1000.0")
    ('ddr4-2400:clock_mhz=800', 'hbm2:channels=4,clock_mhz=1000.0')
    """
    if not _NUMBER.fullmatch(clock_mhz) or not Fraction(clock_mhz):
        raise ConfigError(f"clock_mhz must be a number above 0, not {clock_mhz!r}")
    if parse_memory(memory).describe()["name"] == "ideal":
        return memory
    given = _GIVEN.search(memory)
    if given is None:
        settings = memory.startswith("dram:") or ":" in memory.rpartition(".ini")[2]
        return f"{memory}{',' if settings else ':'}clock_mhz={clock_mhz}"
    if Fraction(given[1]) != Fraction(clock_mhz):
        raise ConfigError(
            f"memory {memory!r}: clock_mhz must be {clock_mhz}, the accelerator's, not {given[1]}"
        )
    return memory
