"""The curve of drift: as many points as steps, in per cent."""

import pytest

from signbook.plots import drift_curve


@pytest.mark.parametrize("errors", [[0.0], [0.0, 0.0], [0.0, 0.1, 0.25]])
def test_it_has_a_point_for_each_step(errors):
    svg = drift_curve(errors)
    assert svg.startswith("<svg") and "step of sampling" in svg and "% of the original" in svg
    points = svg[svg.index('id="', svg.index("line2d_")) :]
    assert points.count("<use") >= len(errors)
