"""The methods: each corrects the columns that are still free in its own way.

Columns of a weight [O, I] are rounded one after another. ``w`` is a column just before it is
rounded, ``r`` what it is rounded to, ``o`` the same column of the original weight. With
``inv(H) = U'U``, ``T = U / diag(U)`` by rows and ``P`` the cross term (:mod:`rescomp.factor`),
every method adds to the free columns

    ``-[(w - r) + drift * (o - w)] T + [asymmetry * w + drift * (o - w)] P``

after it has moved the whole weight by ``exact * W D inv(H)`` once. A method sets the three numbers.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from vq.errors import ConfigError

__all__ = [
    "FOEM",
    "GPTAQ",
    "GPTAQR",
    "GPTQ",
    "GPTQR",
    "MODES",
    "QEP",
    "RTN",
    "Correction",
    "Method",
    "uncrossed",
]

#: What the ResComp term sees outside a block: the weight before rounding, or the rounded one.
MODES = ("allw", "org")


@dataclass(frozen=True)
class Correction:
    """Numbers of the update above, and whether it needs the cross term ``D``.

    In mode "org", columns outside the block of the present one see ``r`` in place of ``w`` in
    both brackets' terms but ``w - r``; the result then depends on the block size.
    """

    asymmetry: float = 0.0
    drift: float = 0.0
    exact: float = 0.0
    mode: str = "allw"
    cross: bool = False


def _check(name: str, mode: str = "allw", **shares: float) -> None:
    for field, value in shares.items():
        if not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"{name} {field} must be finite and not negative, not {value!r}")
    if mode not in MODES:
        raise ConfigError(f"{name} mode must be one of {', '.join(MODES)}, not {mode!r}")


@dataclass(frozen=True)
class RTN:
    """Round to nearest: every weight by itself, without calibration."""

    name: ClassVar[str] = "rtn"

    def correction(self) -> Correction | None:
        """Nothing is corrected."""
        return None


@dataclass(frozen=True)
class GPTQ:
    """Free columns make up for the rounding error of each one: least squares on the inputs."""

    name: ClassVar[str] = "gptq"

    def correction(self) -> Correction:
        """The rounding error alone."""
        return Correction()


@dataclass(frozen=True)
class GPTAQ:
    """GPTQ towards the outputs of the unquantised model: its inputs differ from those here.

    Attributes
    ----------
    alpha : float
        Share of the difference that is made up for; 1 is the paper's formula, 0.25 its code's.
    """

    name: ClassVar[str] = "gptaq"

    alpha: float = 0.25

    def __post_init__(self) -> None:
        _check(self.name, alpha=self.alpha)

    def correction(self) -> Correction:
        """Each column's own share of the asymmetry."""
        return Correction(asymmetry=self.alpha, cross=True)


@dataclass(frozen=True)
class GPTQR:
    """GPTQ with ResComp's term, which pulls back what compensation has moved a column.

    Attributes
    ----------
    alpha2 : float
        Share of the pull.
    mode : "allw" or "org"
        What columns outside a block see: weights before rounding, or rounded ones.
    """

    name: ClassVar[str] = "gptq-r"

    alpha2: float = 0.25
    mode: str = "allw"

    def __post_init__(self) -> None:
        _check(self.name, self.mode, alpha2=self.alpha2)

    def correction(self) -> Correction:
        """The rounding error and a share of the drift."""
        return Correction(drift=self.alpha2, mode=self.mode)


@dataclass(frozen=True)
class GPTAQR:
    """GPTAQ with ResComp's term; ``alpha`` as in :class:`GPTAQ`, the rest as in :class:`GPTQR`."""

    name: ClassVar[str] = "gptaq-r"

    alpha: float = 0.25
    alpha2: float = 0.25
    mode: str = "allw"

    def __post_init__(self) -> None:
        _check(self.name, self.mode, alpha=self.alpha, alpha2=self.alpha2)

    def correction(self) -> Correction:
        """Rounding error, asymmetry and drift."""
        return Correction(asymmetry=self.alpha, drift=self.alpha2, mode=self.mode, cross=True)


@dataclass(frozen=True)
class FOEM:
    """GPTQ with a first-order error term: the same update as ``GPTQR(alpha2=beta)``.

    The pull of the next column towards the original weight, which the method's own code has
    besides, is not part of it.
    """

    name: ClassVar[str] = "foem"

    beta: float = 0.2

    def __post_init__(self) -> None:
        _check(self.name, beta=self.beta)

    def correction(self) -> Correction:
        """The rounding error and a share of the drift."""
        return Correction(drift=self.beta)


@dataclass(frozen=True)
class QEP:
    """GPTQ on the weight that best gives the unquantised model's outputs from the inputs here.

    That weight is ``W (I + beta * D inv(H))``; with ``beta`` 1 it minimises the asymmetric
    objective exactly, before rounding.
    """

    name: ClassVar[str] = "qep"

    beta: float = 1.0

    def __post_init__(self) -> None:
        _check(self.name, beta=self.beta)

    def correction(self) -> Correction:
        """A new target, then the rounding error alone."""
        return Correction(exact=self.beta, cross=True)


def uncrossed(method: "Method") -> "Method":
    """What a method is without the cross term."""
    match method:
        case GPTAQR(alpha2=alpha2, mode=mode):
            return GPTQR(alpha2, mode)
        case GPTAQ() | QEP():
            return GPTQ()
    return method


Method = RTN | GPTQ | GPTAQ | GPTQR | GPTAQR | FOEM | QEP
