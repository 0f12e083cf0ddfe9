"""How codebooks are found and fitted."""

from dataclasses import dataclass

from vq.errors import ConfigError

__all__ = ["Fitting"]

_LEAST = {"iterations": 0, "em": 0, "restarts": 1, "again": 0, "sweeps": 0, "candidates": 1}


@dataclass(frozen=True)
class Fitting:
    """What codebooks need besides :class:`rescomp.Settings`.

    Attributes
    ----------
    iterations : int
        Of k-means, at most: over few sub-vectors first, then over all.
    em : int
        Rounds of expectation-maximisation after it, at most: sub-vectors choose their codewords,
        and codewords are fitted to them, in the exact metric of their columns.
    restarts : int
        Starts of k-means; the one whose result has the least objective is kept.
    again : int
        Times that every start is followed by another for the weights as they were when their turn
        came: refined from the codebook before by ``em`` rounds, or clustered anew without any.
    sweeps : int
        Times that all groups choose again after the solver, with the whole Hessian, and that
        codebook and scales are refitted. The objective never rises.
    candidates : int
        Codewords whose signs are searched, the nearest by the diagonal of the metric.
    """

    iterations: int = 8
    em: int = 0
    restarts: int = 1
    again: int = 0
    sweeps: int = 0
    candidates: int = 4

    def __post_init__(self) -> None:
        for field, least in _LEAST.items():
            if getattr(self, field) < least:
                raise ConfigError(f"{field} must be at least {least}, not {getattr(self, field)!r}")
