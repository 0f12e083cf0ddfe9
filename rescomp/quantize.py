"""The door: one weight matrix to the codes and scales of an int8, int4, int3 or int2 layer."""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rescomp.factor import cross_term, inverse_factor, transposed_times
from rescomp.grid import Clip, fit_grid, group_width, levels_of
from rescomp.levels import ColumnGrids
from rescomp.methods import Method, Rule
from rescomp.solver import solve_columns
from rescomp.statistics import Statistics, is_finite
from vq.container import Geometry, Layer
from vq.errors import ConfigError, UnsupportedLayerError, WeightError
from vq.grids import Grid

__all__ = ["Quantized", "Report", "Settings", "quantize_matrix"]

_METHODS = ("int8", "int4", "int3", "int2")
#: Least damping after none, and the greatest that is tried, in units of the mean diagonal.
_DAMPING_MIN, _DAMPING_MAX = 1e-4, 1.0


@dataclass(frozen=True)
class Settings:
    """What all methods share.

    Attributes
    ----------
    damping : float
        Added to the diagonal of the Hessian, in units of its mean. Where that does not suffice
        for a finite result, ten times as much, and so on up to 1; the report says which.
    activation_order : bool
        Round columns in the order of falling input energy. Groups stay where they are, so that
        the stored layer is an ordinary one.
    dynamic_groups : bool
        Fit a group's grid to its columns when their turn comes, not to the original weight.
        Needs ``activation_order=False``.
    clip : Clip or None
        Search for narrower ranges.
    dtype : torch.dtype
        float32 or float64, of all work.
    leaf : int
        Columns that the solver works off one by one; matters to speed only.
    org_block : int
        Columns of a block of the methods' mode "org", whose results it decides.
    measure : bool
        Report the errors of the outputs; costs two products with the Hessian.
    """

    damping: float = 0.01
    activation_order: bool = True
    dynamic_groups: bool = False
    clip: Clip | None = None
    dtype: torch.dtype = torch.float32
    leaf: int = 32
    org_block: int = 128
    measure: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.damping <= _DAMPING_MAX:
            raise ConfigError(f"damping must be 0 to {_DAMPING_MAX:g}, not {self.damping!r}")
        if self.dtype not in (torch.float32, torch.float64):
            raise ConfigError(f"dtype must be float32 or float64, not {self.dtype}")
        for field in ("leaf", "org_block"):
            if getattr(self, field) < 1:
                raise ConfigError(f"{field} must be positive, not {getattr(self, field)!r}")
        if self.dynamic_groups and self.activation_order:
            raise ConfigError(
                "activation_order must be False with dynamic groups, not True: their groups would "
                "be scattered over the inputs, which no container stores"
            )


@dataclass(frozen=True)
class Report:
    """How it went.

    Attributes
    ----------
    damping : float
        What was used, in units of the Hessian's mean diagonal; 0 for RTN.
    dead_columns : int
        Inputs that calibration never saw other than 0; their weights are 0 now. RTN keeps them.
    tokens : int
        Tokens of the calibration.
    error, asymmetric_error : float or None
        :meth:`Statistics.error` and :meth:`Statistics.asymmetric_error`, against the weight as it
        was given; None if not measured.
    """

    damping: float
    dead_columns: int
    tokens: int
    error: float | None
    asymmetric_error: float | None


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
        return self.integers.float() * _spread(self.grid.scale, self.geometry)

    @property
    def codes(self) -> Tensor:
        """Codes as stored: [O, I] uint8, or the int8 integers themselves."""
        g = self.geometry
        if g.method == "int8":
            return self.integers
        zero = 1 << (g.b - 1) if self.grid.zero is None else _spread(self.grid.zero, g)
        return (self.integers + zero).to(torch.uint8)

    def to_layer(self) -> Layer:
        """The layer that a container stores."""
        g = self.geometry
        if g.method == "int8":
            return Layer.int8(
                g.name,
                integers=self.integers.cpu().numpy(),
                scale=self.grid.scale[:, 0].cpu().numpy(),
                shape=g.shape,
                op=g.op,
                tile_outputs=g.tile_outputs,
            )
        return Layer.grouped(
            g.name,
            method=g.method,
            codes=self.codes.cpu().numpy(),
            group_scales=self.grid.scale.cpu().numpy().astype(np.float16),
            group_zeros=None if self.grid.zero is None else self.grid.zero.cpu().numpy(),
            group=g.group,
            shape=g.shape,
            op=g.op,
            tile_outputs=g.tile_outputs,
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
        If the layer's method is not int8, int4, int3 or int2.
    WeightError
        If the weight is not finite, or too large for fp16 scales.
    ConfigError
        If a shape does not fit, or the statistics are missing, empty, not finite or not those of
        a positive semi-definite Hessian.
    """
    settings = settings or Settings()
    _check_weight(weight, geometry)
    if statistics is not None:
        _check_statistics(statistics, geometry)
    rule = method.rule()
    if rule is None:
        quantized = _round(weight, geometry, settings)
        damping, dead = 0.0, 0
    else:
        _check_needs(statistics, rule, method, geometry)
        assert statistics is not None
        quantized, damping, dead = _solve(weight, geometry, rule, statistics, settings)
    integers, grid = quantized
    plain = Report(damping, dead, 0 if statistics is None else statistics.tokens, None, None)
    found = Quantized(geometry, integers, grid, plain)
    if statistics is None or not settings.measure:
        return found
    decoded = found.weight
    report = Report(
        damping,
        dead,
        statistics.tokens,
        statistics.error(weight, decoded),
        statistics.asymmetric_error(weight, decoded),
    )
    return Quantized(geometry, integers, grid, report)


def _round(weight: Tensor, g: Geometry, settings: Settings) -> tuple[Tensor, Grid]:
    """Round every weight to the nearest level."""
    grid = fit_grid(weight, g, settings.clip)
    scale = _spread(grid.scale, g).to(settings.dtype)
    low, high = levels_of(g, None if grid.zero is None else _spread(grid.zero, g))
    levels = (weight.to(settings.dtype) / scale).round_().clamp_(low, high)
    return levels.to(torch.int8), grid


def _solve(
    weight: Tensor, g: Geometry, rule: Rule, statistics: Statistics, settings: Settings
) -> tuple[tuple[Tensor, Grid], float, int]:
    """Run the solver, with more damping as long as its result is not finite."""
    problem = _Problem.of(weight, g, rule, statistics, settings)
    damping = settings.damping
    while True:
        found = problem.solve(damping)
        if found is not None:
            return found, damping, problem.dead
        damping = max(10 * damping, _DAMPING_MIN)
        if damping > _DAMPING_MAX:
            raise ConfigError(
                f"layer {g.name!r}: hessian must be positive semi-definite, and was singular with "
                f"its mean diagonal added {_DAMPING_MAX:g} times; gather it again"
            )


@dataclass(frozen=True, eq=False)
class _Problem:
    """A layer in the solver's layout: columns as rows, dead ones 0, in the order of solving.

    Attributes
    ----------
    original : [I, O]
    hessian, cross : [I, I]
    grid : Grid or None
        None where groups are fitted on the way.
    order : [I] int64
        Original place of every column.
    dead : int
    """

    g: Geometry
    rule: Rule
    settings: Settings
    original: Tensor
    hessian: Tensor
    cross: Tensor | None
    grid: Grid | None
    order: Tensor
    dead: int

    @classmethod
    def of(
        cls, weight: Tensor, g: Geometry, rule: Rule, statistics: Statistics, settings: Settings
    ) -> "_Problem":
        def local(matrix: Tensor) -> Tensor:
            return matrix.to(weight.device, settings.dtype)

        hessian = local(statistics.hessian)
        cross = local(statistics.cross) if rule.cross and statistics.cross is not None else None
        energy = hessian.diagonal()
        dead = energy == 0
        original = local(weight).T.contiguous()
        if bool(dead.any()):
            original = original.masked_fill(dead[:, None], 0)
            hessian = hessian.clone()
            hessian.diagonal()[dead] = energy[~dead].mean() if bool((~dead).any()) else 1.0
        grid = None if settings.dynamic_groups else fit_grid(original.T, g, settings.clip)
        order = torch.arange(g.I, device=weight.device)
        if settings.activation_order:
            order = torch.argsort(energy, descending=True, stable=True)
            original = original[order]
            hessian = hessian.index_select(0, order).index_select(1, order)
            if cross is not None:
                cross = cross.index_select(0, order).index_select(1, order)
        return cls(g, rule, settings, original, hessian, cross, grid, order, int(dead.sum()))

    def solve(self, damping: float) -> tuple[Tensor, Grid] | None:
        """Integers [O, I] int8 and their grid; None if more damping is needed."""
        factor = inverse_factor(self.hessian, damping)
        if factor is None:
            return None
        rule, settings = self.rule, self.settings
        current, loop_cross = self._target(factor)
        factor.div_(factor.diagonal().clone()[:, None])
        grids = ColumnGrids(self.g, self.grid, current, self.order.tolist(), settings.clip)
        levels = solve_columns(
            current,
            self.original,
            factor,
            loop_cross,
            grids,
            rule,
            leaf=settings.leaf,
            org_block=settings.org_block,
        )
        if not is_finite(current):
            return None
        integers = torch.empty_like(levels, dtype=torch.int8)
        integers[self.order] = levels.to(torch.int8)
        return (integers.T.contiguous(), self.grid or grids.fitted())

    def _target(self, factor: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the columns start from, and the cross term that is left for the solver."""
        rule, target = self.rule, self.original.clone()
        if self.cross is None:
            return target, None
        if rule.exact:
            shift = factor @ (self.cross.T @ self.original)
            target.add_(transposed_times(factor, shift), alpha=rule.exact)
        if not (rule.asymmetry or rule.drift):
            return target, None
        cross = cross_term(self.cross, factor)
        if rule.asymmetry != rule.drift or self.grid is None:
            return target, cross
        # Both shares make drift * W P, whatever is rounded: one product, now. Groups that are
        # fitted on the way see a column as it is in its turn, so theirs is added in turn, too.
        return target.add_(transposed_times(cross, self.original), alpha=rule.drift), None


def _spread(values: Tensor, g: Geometry) -> Tensor:
    """Give every weight what belongs to its group: [O, groups] to [O, I]."""
    return values.repeat_interleave(group_width(g), dim=1)[:, : g.I]


def _check_weight(weight: Tensor, g: Geometry) -> None:
    if g.method not in _METHODS:
        raise UnsupportedLayerError(
            f"layer {g.name!r}: method must be one of {', '.join(_METHODS)}, not {g.method!r}"
        )
    if g.method == "int8" and g.scales != g.O:
        raise UnsupportedLayerError(
            f"layer {g.name!r}: scales must be {g.O}, one per output, not {g.scales}"
        )
    if tuple(weight.shape) != (g.O, g.I):
        raise ConfigError(
            f"layer {g.name!r}: weight must be [{g.O}, {g.I}], not {list(weight.shape)}"
        )
    if not is_finite(weight):
        raise WeightError(f"layer {g.name!r}: weight must be finite, not NaN or infinite")


def _check_statistics(statistics: Statistics, g: Geometry) -> None:
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


def _check_needs(statistics: Statistics | None, rule: Rule, method: Method, g: Geometry) -> None:
    if statistics is None:
        raise ConfigError(
            f"layer {g.name!r}: statistics must be given for {method.name}, not None; only rtn "
            "works without"
        )
    if rule.cross and statistics.cross is None:
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
