"""How codebooks are found and fitted."""

from dataclasses import dataclass

from vq.errors import ConfigError

__all__ = ["Fitting"]


@dataclass(frozen=True)
class Fitting:
    """What codebooks need besides :class:`rescomp.Settings`.

    Attributes
    ----------
    iterations : int
        Of k-means, at most.
    restarts : int
        Starts of k-means; the one whose result has the least objective is kept.
    sweeps : int
        Times that all groups choose again after the solver, with the whole Hessian, and that
        codebook and scales are refitted. The objective never rises.
    candidates : int
        Codewords whose signs are searched, the nearest by the diagonal of the metric.
    """

    iterations: int = 25
    restarts: int = 1
    sweeps: int = 0
    candidates: int = 4

    def __post_init__(self) -> None:
        for field, least in (("iterations", 0), ("restarts", 1), ("sweeps", 0), ("candidates", 1)):
            if getattr(self, field) < least:
                raise ConfigError(f"{field} must be at least {least}, not {getattr(self, field)!r}")
