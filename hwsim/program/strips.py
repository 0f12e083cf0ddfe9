"""Strips: rows of a step that one descriptor can give, so that positions and buffers suffice."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from hwsim.program.memory import pixel_bytes
from hwsim.program.step import Step
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


def strips_of(step: Step, config: AcceleratorConfig) -> Iterator[Strip]:
    """Cut a step along its rows, so that positions and buffers suffice."""
    height, most = step.target.height, rows_at_once(step, config)
    for first in range(0, height, most):
        yield _strip(step, first, min(most, height - first))


def rows_at_once(step: Step, config: AcceleratorConfig) -> int:
    """Rows of the target that one descriptor can give; 0 if not even one."""
    target_bytes = step.target.width * pixel_bytes(step.target.channels, config)
    source_bytes = step.source.width * pixel_bytes(step.source.channels, config)

    def fits(rows: int) -> bool:
        strip = _strip(step, 0, rows) if rows == step.target.height else _widest(step, rows)
        granule = GRANULE_BYTES  # the first row of a strip may begin inside a granule
        return (
            strip.positions <= config.accumulators
            and strip.input_rows * source_bytes + 2 * granule <= config.input_bytes // SLOTS
            and rows * target_bytes + granule <= config.output_bytes // SLOTS
        )

    height = step.target.height
    if fits(height):
        return height
    if step.pool:
        return 0
    # A strip must begin on a granule.
    unit = GRANULE_BYTES // math.gcd(target_bytes, GRANULE_BYTES)
    return max((rows for rows in range(unit, height, unit) if fits(rows)), default=0)


def _strip(step: Step, first: int, rows: int) -> Strip:
    if step.pool:
        return Strip(step, first, rows, 0, step.source.height)
    top = first * step.stride[0] - step.before[0]
    top, bottom = max(0, top), min(step.source.height, top + _reach(step, rows))
    if bottom <= top:  # windows of padding alone still need a row to walk over
        top = min(max(0, top), step.source.height - 1)
        bottom = top + 1
    return Strip(step, first, rows, top, bottom - top)


def _widest(step: Step, rows: int) -> Strip:
    """A strip from the middle, where padding saves no input rows."""
    return Strip(step, 0, rows, 0, min(_reach(step, rows), step.source.height))


def _reach(step: Step, rows: int) -> int:
    """Rows of the source, padding included, over which the windows of so many rows go."""
    return (rows - 1) * step.stride[0] + (step.kernel[0] - 1) * step.dilation[0] + 1
