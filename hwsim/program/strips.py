"""Strips: rows of a step that one descriptor can give, so that positions and buffers suffice."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from hwsim.program.memory import Place, Space
from hwsim.program.step import Step, Tensor
from rtl import AcceleratorConfig
from rtl.transfer.load import SLOTS
from vq.container import GRANULE_BYTES

__all__ = ["Strip", "rows_at_once", "strips_of"]


@dataclass(frozen=True, eq=False)
class Strip:
    """Rows of a step's target that one descriptor gives, and the rows of the source it needs."""

    step: Step
    first_row: int
    rows: int
    first_input_row: int
    input_rows: int

    @property
    def positions(self) -> int:
        """Sums that are kept at once."""
        return 1 if self.step.pool else self.rows * self.step.target.width


def strips_of(step: Step, space: Space, config: AcceleratorConfig) -> Iterator[Strip]:
    """Cut a step along its rows, so that positions and buffers suffice."""
    rows = rows_at_once(step, config)
    height = step.target.height
    for first in range(0, height, rows):
        count = min(rows, height - first)
        yield _strip(step, first, count)


def rows_at_once(step: Step, config: AcceleratorConfig) -> int:
    """Rows of the target that one descriptor can give; 0 if not even one."""
    target = Place(step.target, 0, _pixel(step.target, config))
    source = Place(step.source, 0, _pixel(step.source, config))
    # A strip must begin on a granule.
    unit = GRANULE_BYTES // math.gcd(target.row_bytes, GRANULE_BYTES)

    def fits(rows: int) -> bool:
        strip = _strip(step, 0, rows) if rows == step.target.height else _widest(step, rows)
        granule = GRANULE_BYTES  # the first row of a strip may begin inside a granule
        return (
            strip.positions <= config.accumulators
            and strip.input_rows * source.row_bytes + 2 * granule <= config.input_bytes // SLOTS
            and rows * target.row_bytes + granule <= config.output_bytes // SLOTS
        )

    height = step.target.height
    if fits(height):
        return height
    if step.pool:
        return 0
    candidates = [rows for rows in range(unit, height, unit) if fits(rows)]
    return max(candidates, default=0)


def _strip(step: Step, first: int, rows: int) -> Strip:
    if step.pool:
        return Strip(step, first, rows, 0, step.source.height)
    top = first * step.stride[0] - step.before[0]
    bottom = top + (rows - 1) * step.stride[0] + (_kernel(step) - 1) * step.dilation[0] + 1
    top, bottom = max(0, top), min(step.source.height, bottom)
    if bottom <= top:  # windows of padding alone still need a row to walk over
        top = min(max(0, top), step.source.height - 1)
        bottom = top + 1
    return Strip(step, first, rows, top, bottom - top)


def _widest(step: Step, rows: int) -> Strip:
    """A strip from the middle, where padding saves no input rows."""
    reach = (rows - 1) * step.stride[0] + (_kernel(step) - 1) * step.dilation[0] + 1
    return Strip(step, 0, rows, 0, min(reach, step.source.height))


def _pixel(tensor: Tensor, config: AcceleratorConfig) -> int:
    word = max(config.rows, config.columns)
    return -(-tensor.channels // word) * word


def _kernel(step: Step) -> int:
    return step.kernel[0]
