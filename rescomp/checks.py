"""What the door refuses, layer and requirement named."""

import warnings

from torch import Tensor

from rescomp.methods import Correction, Method
from vq.calibration.statistics import Statistics, is_finite
from vq.container import Geometry
from vq.errors import ConfigError, UnsupportedLayerError, WeightError

__all__ = [
    "check_book",
    "check_method",
    "check_needs",
    "check_statistics",
    "check_values",
    "check_weight",
]


def check_method(method: object) -> None:
    """Refuse what is no method, such as the name of one."""
    if not isinstance(method, Method):
        raise ConfigError(f"method must be one of rescomp.methods, such as GPTQ(), not {method!r}")


def check_weight(weight: Tensor, g: Geometry) -> None:
    """Refuse layers that are not scalar, and weights that do not fit or are not finite."""
    if g.k:
        raise UnsupportedLayerError(
            f"layer {g.name!r}: method must be one of int8, int4, int3, int2, not {g.method!r}"
        )
    if not g.group and g.scales != g.O:
        raise UnsupportedLayerError(
            f"layer {g.name!r}: scales must be {g.O}, one per output, not {g.scales}"
        )
    check_values(weight, g)


def check_values(weight: Tensor, g: Geometry) -> None:
    """Refuse weights that do not fit their layer or are not finite."""
    if tuple(weight.shape) != (g.O, g.I):
        raise ConfigError(
            f"layer {g.name!r}: weight must be [{g.O}, {g.I}], not {list(weight.shape)}"
        )
    if not is_finite(weight):
        raise WeightError(f"layer {g.name!r}: weight must be finite, not NaN or infinite")


def check_book(book: Tensor, g: Geometry) -> None:
    """Refuse a codebook in units that is not its layer's; warn of one that reaches few weights."""
    said = f"layer {g.name!r}: codebook must be"
    if tuple(book.shape) != (g.k, g.d):
        raise ConfigError(f"{said} [{g.k}, {g.d}], not {list(book.shape)}")
    if not is_finite(book):
        raise ConfigError(f"{said} finite, not NaN or infinite")
    if g.sign_bits and float(book.min()) < 0:
        raise ConfigError(f"{said} magnitudes, as signs are stored, not {float(book.min()):g}")
    reach = float(book.abs().max())
    if reach < 0.5:
        warnings.warn(
            f"layer {g.name!r}: codebook should reach 0.5, half the root mean square of weights, "
            f"not {reach:g}; larger weights are lost unless sweeps refit their scales",
            stacklevel=4,  # quantize_codebook is decorated
        )


def check_statistics(statistics: Statistics, g: Geometry) -> None:
    """Refuse statistics that are empty, do not fit, or cannot be second moments."""
    if statistics.tokens < 1:
        raise ConfigError(f"layer {g.name!r}: statistics must hold tokens, not none; calibrate")
    for field, matrix in (("hessian", statistics.hessian), ("cross", statistics.cross)):
        if matrix is None:
            continue
        if tuple(matrix.shape) != (g.I, g.I):
            raise ConfigError(
                f"layer {g.name!r}: {field} must be [{g.I}, {g.I}], not {list(matrix.shape)}"
            )
        if not is_finite(matrix):
            raise ConfigError(f"layer {g.name!r}: {field} must be finite, not NaN or infinite")
    hessian = statistics.hessian
    least = float(hessian.diagonal().min())
    if least < 0:
        raise ConfigError(
            f"layer {g.name!r}: hessian's diagonal must not be negative, not {least:g}"
        )
    skew = float((hessian.sum(dim=0) - hessian.sum(dim=1)).abs().max())
    if skew > 1e-2 * float(hessian.diagonal().max()):
        raise ConfigError(
            f"layer {g.name!r}: hessian must be symmetric, not with sums of a row and its column "
            f"that differ by {skew:g}"
        )


def check_needs(
    statistics: Statistics | None, correction: Correction, method: Method, g: Geometry
) -> Statistics:
    """Return the statistics if they hold what a method needs; warn of too few tokens."""
    if statistics is None:
        raise ConfigError(
            f"layer {g.name!r}: statistics must be given for {method.name}, not None; only rtn "
            "works without"
        )
    if correction.cross and statistics.cross is None:
        raise ConfigError(
            f"layer {g.name!r}: statistics must hold cross for {method.name}, not None; gather "
            "them with cross=True"
        )
    if statistics.tokens < g.I:
        warnings.warn(
            f"layer {g.name!r}: statistics should hold a token for each of {g.I} inputs, "
            f"not {statistics.tokens}; its result depends on the damping",
            stacklevel=4,  # quantize_matrix is decorated
        )
    return statistics
