"""Images that models drew, side by side."""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import ArrayLike, NDArray

from signbook.plots.style import INK, LINE, short
from vq.errors import ConfigError

__all__ = ["sample_sheet"]

#: Shades between paper and ink; one more is the paper itself.
_SHADES = 7
#: Points: of an image, between two, between two arms, and of the line of text above them.
_IMAGE, _GAP, _APART, _TITLE = 34, 3, 20, 18


def sample_sheet(arms: Mapping[str, ArrayLike], *, columns: int = 4) -> str:
    """Draw a sheet of grey images for each arm, as SVG for inlining.

    Arms stand side by side, with equal places for what started from equal noise. Images are drawn
    in ink on paper, as areas of a shade and not as pixels of a picture, so that they follow the
    reader's screen and a page may forbid pictures.

    Parameters
    ----------
    arms : mapping of str to [N, H, W] arrays
        Brightness in [0, 1], 1 being ink; what is outside counts as 0 or 1. All of one shape.
    columns : int
        Images beside each other in an arm.

    Raises
    ------
    ConfigError
        If there are no images, they are not finite, or arms differ in shape.
    """
    sheets = {name: np.asarray(images, float) for name, images in arms.items()}
    shapes = {sheet.shape for sheet in sheets.values()}
    if len(shapes) != 1 or len(shape := next(iter(shapes))) != 3 or not all(shape) or columns < 1:
        raise ConfigError(
            "a sample sheet must have arms of [images, height, width], all alike, and columns, not "
            f"{', '.join(f'{n!r} of {list(s.shape)}' for n, s in sheets.items()) or 'none'} in "
            f"{columns} columns"
        )
    for name, sheet in sheets.items():
        if not np.isfinite(sheet).all():
            raise ConfigError(f"samples of {name!r} must be finite, not NaN or infinite")
    count, height, width = next(iter(shapes))
    columns = min(columns, count)
    scale = _IMAGE / width
    across, down = _IMAGE + _GAP, scale * height + _GAP
    apart = columns * across - _GAP + _APART
    size = (len(sheets) * apart - _APART, _TITLE + -(-count // columns) * down - _GAP)
    parts = []
    for arm, (name, sheet) in enumerate(sheets.items()):
        left = arm * apart
        parts.append(
            f'<text x="{left}" y="{_TITLE - 6}" fill="var(--ink, {INK})">'
            f"{escape(short(name, 8 + 5 * columns))}</text>"
        )
        for place, image in enumerate(sheet):
            x, y = left + place % columns * across, _TITLE + place // columns * down
            parts.append(
                f'<g transform="translate({x:g} {y:g}) scale({scale:g})">'
                f'<path fill="none" stroke="var(--line, {LINE})" stroke-width="{1 / scale:g}" '
                f'd="M0 0h{width}v{height}h-{width}z"/>{_shaded(image)}</g>'
            )
    box = f"-1 -1 {size[0] + 2:g} {size[1] + 2:g}"  # lines at the edge are whole
    return (
        f'<svg class="plot" style="max-width: {size[0] + 2:g}pt" viewBox="{box}" '
        'xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="9.5" '
        f'role="img">{"".join(parts)}</svg>'
    )


def _shaded(image: NDArray[np.float64]) -> str:
    """An image [H, W] as one path for each shade, of rows of equal pixels."""
    shades = (image.clip(0, 1) * _SHADES).round().astype(int)
    runs: dict[int, list[str]] = {}
    for y, row in enumerate(shades):
        for x, length in _runs(row.tolist()):
            if shade := int(row[x]):
                runs.setdefault(shade, []).append(f"M{x} {y}h{length}v1h-{length}z")
    return "".join(
        f'<path fill="var(--ink, {INK})" fill-opacity="{shade / _SHADES:.2g}" '
        f'shape-rendering="crispEdges" d="{"".join(found)}"/>'
        for shade, found in sorted(runs.items())
    )


def _runs(values: Sequence[int]) -> list[tuple[int, int]]:
    """Where equal values begin, and how many there are.

    >>> _runs([0, 0, 3, 1, 1])
    [(0, 2), (2, 1), (3, 2)]
    """
    starts = [i for i, value in enumerate(values) if i == 0 or value != values[i - 1]]
    ends = [*starts[1:], len(values)]
    return [(start, end - start) for start, end in zip(starts, ends, strict=True)]
