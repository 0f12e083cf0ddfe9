"""Weights whose outputs see inputs of their own in each part: convolutions in groups."""

from dataclasses import replace

import torch
from torch import Tensor

from rescomp.methods import Method
from rescomp.quantize import Quantized, Report, quantize_matrix
from rescomp.settings import Settings
from vq.calibration.statistics import Statistics
from vq.container import Geometry
from vq.formats.clip import part_of
from vq.formats.grids import Grid

__all__ = ["quantize_parts"]


def quantize_parts(
    matrix: Tensor,
    g: Geometry,
    method: Method,
    statistics: list[Statistics] | None,
    settings: Settings,
) -> Quantized:
    """Quantise a weight [O, I] whose outputs see inputs of their own in each of its parts."""
    if statistics is None or len(statistics) == 1:
        whole = None if statistics is None else statistics[0]
        return _on_cpu(quantize_matrix(matrix, g, method, whole, settings))
    rows = g.O // len(statistics)
    part = replace(part_of(g, (rows, g.I), g.group), name=g.name)
    found = [
        quantize_matrix(weight, part, method, sums, settings)
        for weight, sums in zip(torch.split(matrix, rows), statistics, strict=True)
    ]
    zeros = [one.grid.zero for one in found if one.grid.zero is not None]
    grid = Grid(torch.cat([one.grid.scale for one in found]), torch.cat(zeros) if zeros else None)
    reports = [one.report for one in found]
    errors = [r.error for r in reports if r.error is not None]
    asymmetric = [r.asymmetric_error for r in reports if r.asymmetric_error is not None]
    report = Report(
        max(r.damping for r in reports),
        sum(r.dead_columns for r in reports),
        reports[0].tokens,
        sum(errors) if errors else None,
        sum(asymmetric) if asymmetric else None,
    )
    return _on_cpu(Quantized(g, torch.cat([one.integers for one in found]), grid, report))


def _on_cpu(found: Quantized) -> Quantized:
    zero = found.grid.zero
    grid = Grid(found.grid.scale.cpu(), None if zero is None else zero.cpu())
    return Quantized(found.geometry, found.integers.cpu(), grid, found.report)
