"""The door: one weight matrix to the codes and scales of an int8, int4, int3 or int2 layer."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rescomp.checks import check_method, check_needs, check_statistics, check_weight
from rescomp.methods import Method
from rescomp.problem import Solution, solve
from rescomp.settings import Settings
from vq.calibration.statistics import Statistics
from vq.container import Geometry, Layer
from vq.formats.clip import fit_grid
from vq.formats.grids import Grid, levels_of, on_grid, spread

__all__ = ["Quantized", "Report", "quantize_matrix"]


@dataclass(frozen=True)
class Report:
    """How it went.

    Attributes
    ----------
    damping : float
        What was used, in units of the Hessian's mean diagonal; 0 for RTN.
    dead_columns : int
        Inputs that calibration never saw other than 0. Scalar weights there are 0 now, but RTN
        keeps them; in codewords they are whatever the chosen ones hold.
    tokens : int
        Tokens of the calibration.
    error, asymmetric_error : float or None
        :meth:`Statistics.error` and :meth:`Statistics.asymmetric_error`, against the weight as it
        was given; None if not measured.
    """

    damping: float
    dead_columns: int
    tokens: int
    error: float | None = None
    asymmetric_error: float | None = None


@dataclass(frozen=True, eq=False)
class Quantized:
    """A quantised matrix; ``weight`` is what every reader of the stored layer decodes.

    Attributes
    ----------
    geometry : Geometry
    integers : [O, I] int8
        Codes minus zeros.
    grid : Grid
        Scales, and zeros where the layer stores them, [O, groups of an output].
    report : Report
    """

    geometry: Geometry
    integers: Tensor
    grid: Grid
    report: Report

    @property
    def weight(self) -> Tensor:
        """Decoded weight, [O, I] float32; every product is exact."""
        return on_grid(self.integers, self.grid, self.geometry)

    def to_layer(self) -> Layer:
        """The layer that a container stores."""
        grid = self.grid
        return Layer.scalar(
            self.geometry,
            self.integers.cpu().numpy(),
            grid.scale.cpu().numpy(),
            None if grid.zero is None else grid.zero.cpu().numpy(),
        )


@torch.no_grad()
def quantize_matrix(
    weight: Tensor,
    geometry: Geometry,
    method: Method,
    statistics: Statistics | None = None,
    settings: Settings | None = None,
) -> Quantized:
    """Choose codes and scales for a weight.

    Parameters
    ----------
    weight : [O, I]
        Left as it is. The work is done on its device.
    geometry : Geometry
        The layer to make: bits, groups, zeros, its name; from ``vq.Int4(...).geometry(...)``.
    method : Method
        One of :mod:`rescomp.methods`.
    statistics : Statistics, optional
        Of the inputs, in the order of the weight's columns. RTN only measures with it.
    settings : Settings, optional

    Returns
    -------
    Quantized

    Raises
    ------
    UnsupportedLayerError
        If the layer's format is not int8, int4, int3 or int2.
    WeightError
        If the weight is not finite, or too large for fp16 scales.
    ConfigError
        If a shape does not fit, or the statistics are missing, empty, not finite or not those of
        a positive semi-definite Hessian.
    """
    settings = settings or Settings()
    check_method(method)
    check_weight(weight, geometry)
    if statistics is not None:
        check_statistics(statistics, geometry)
    correction = method.correction()
    if correction is None:
        found = _round(weight, geometry, settings)
    else:
        given = check_needs(statistics, correction, method, geometry)
        found = solve(weight, geometry, correction, given, settings)
    report = Report(found.damping, found.dead, 0 if statistics is None else statistics.tokens)
    quantized = Quantized(geometry, found.integers, found.grid, report)
    if statistics is None or not settings.measure:
        return quantized
    decoded = quantized.weight
    measured = replace(
        report,
        error=statistics.error(weight, decoded),
        asymmetric_error=statistics.asymmetric_error(weight, decoded),
    )
    return replace(quantized, report=measured)


def _round(weight: Tensor, g: Geometry, settings: Settings) -> Solution:
    """Round every weight to the nearest level."""
    grid = fit_grid(weight, g, settings.clip)
    scale = spread(grid.scale, g).to(settings.dtype)
    low, high = levels_of(g, None if grid.zero is None else spread(grid.zero, g))
    levels = (weight.to(settings.dtype) / scale).round_().clamp_(low, high)
    return Solution(levels.to(torch.int8), grid, damping=0.0, dead=0)
