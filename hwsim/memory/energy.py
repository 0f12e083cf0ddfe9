"""What accesses cost, from supply currents."""

from dataclasses import asdict, dataclass, fields
from fractions import Fraction

from hwsim.memory.device import Device

__all__ = ["Energy", "EnergyTable"]


@dataclass(frozen=True)
class Energy:
    """Energy of a memory by cause, in picojoules. I/O termination is not in it.

    ``background`` is what flows whether or not anything is accessed, ``activate`` opens and closes
    rows, the others are what comes on top while columns are read or written, or rows refreshed.
    """

    activate_pj: float
    read_pj: float
    write_pj: float
    refresh_pj: float
    background_pj: float

    @property
    def total_pj(self) -> float:
        """Sum of all causes."""
        return sum((getattr(self, field.name) for field in fields(self)), start=0.0)

    def to_mapping(self) -> dict[str, float]:
        """Causes and ``total_pj`` by name."""
        return {**asdict(self), "total_pj": self.total_pj}

    def __sub__(self, earlier: "Energy") -> "Energy":
        """What has been spent since."""
        return Energy(*(getattr(self, f.name) - getattr(earlier, f.name) for f in fields(self)))


class EnergyTable:
    """Energy of one command of each kind, and of a clock, for all devices of a rank.

    With voltage V and the currents of a rail, summed over rails: an activate and its precharge take
    V (IDD0 tRC - IDD3N tRAS - IDD2N (tRC - tRAS)), a read V (IDD4R - IDD3N) for as long as it
    keeps the data bus, a write likewise with IDD4W, a refresh V (IDD5 - IDD3N) tRFC. In each clock
    a rank takes V IDD3N if a row is open, else V IDD2N. These are the formulas of Micron's
    technical notes on memory power (TN-41-01, TN-40-07).

    Parameters
    ----------
    device : Device

    Attributes
    ----------
    activate_pj, read_pj, write_pj, refresh_pj : Fraction
        Of one command.
    active_pj, idle_pj : Fraction
        Of a clock of one rank.
    """

    def __init__(self, device: Device) -> None:
        timing = device.timing
        # mA times V times ps is fJ
        clock = timing.tCK_ps * device.structure.devices / 1000

        def cost(name: str, base: str, clocks: int) -> Fraction:
            return (
                clock
                * clocks
                * sum(
                    (
                        rail.volts * (getattr(rail, name) - getattr(rail, base))
                        for rail in device.rails
                    ),
                    start=Fraction(0),
                )
            )

        def standby(name: str) -> Fraction:
            return clock * sum(
                (rail.volts * getattr(rail, name) for rail in device.rails), start=Fraction(0)
            )

        self.active_pj, self.idle_pj = standby("IDD3N"), standby("IDD2N")
        self.activate_pj = (
            standby("IDD0") * timing.tRC
            - self.active_pj * timing.tRAS
            - self.idle_pj * (timing.tRC - timing.tRAS)
        )
        self.read_pj = cost("IDD4R", "IDD3N", timing.burst)
        self.write_pj = cost("IDD4W", "IDD3N", timing.burst)
        self.refresh_pj = cost("IDD5", "IDD3N", timing.tRFC)
