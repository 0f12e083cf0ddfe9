"""SVG that can stand in a page beside others, on light and on dark paper."""

import re
from itertools import combinations

import pytest
from matplotlib.figure import Figure

from signbook.plots import Point, roofline, split_bars
from signbook.plots.style import INK, PALETTE, SERIES, STALLS, as_svg, make_axes, short


@as_svg
def drawing(text: str) -> Figure:
    figure, axes = make_axes(2, 1)
    axes.plot([0, 1], color=INK, label=text, clip_on=True, marker="o")
    axes.legend()
    return figure


def test_colours_are_those_of_the_page():
    svg = drawing("line")
    assert f"stroke: var(--ink, {INK})" in svg
    assert not re.search(r"(fill|stroke): #(?!000000)", svg), "every colour has a dark one"


def test_plots_share_no_identifiers_and_equal_ones_are_equal():
    one, other = drawing("one"), drawing("other")
    identifiers = [set(re.findall(r' id="([^"]+)"', svg)) for svg in (one, other)]
    assert identifiers[0] and not identifiers[0] & identifiers[1]
    for svg, own in zip((one, other), identifiers, strict=True):
        assert set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg)) <= own
    assert drawing("one") == one


@pytest.mark.parametrize("text", ["$\\frac{$", "<script>x</script>", "a & b", "層\u200b", "]]>-->"])
def test_texts_are_texts(text):
    svg = drawing(text)
    assert "<script" not in svg and "<!--" not in svg
    assert text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in svg


def test_plots_hold_no_images():
    svg = split_bars({"a": {"x": 1, "y": 2}, "b": {"x": 3}}, label="cycles")
    assert "<image" not in svg and "data:" not in svg


def test_colours_differ_for_those_who_see_fewer_hues():
    """Neighbours in lightness, or in blue against yellow, which nearly everybody sees."""
    for colours in (list(STALLS.values()), SERIES):
        for a, b in combinations(colours, 2):
            (l1, y1), (l2, y2) = _seen(a), _seen(b)
            assert abs(l1 - l2) + abs(y1 - y2) > 0.12, (a, b)


def _seen(colour: str) -> tuple[float, float]:
    """Lightness, and how yellow: red and green are one."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return 0.2 * red + 0.7 * green + 0.1 * blue, (red + green) / 2 - blue


def test_every_colour_has_a_dark_twin():
    assert len({light for light, _ in PALETTE.values()}) == len(PALETTE)


def test_long_names_are_cut_in_the_middle():
    name = "model.layers.17.self_attn.rotary_embedding.q_proj"
    assert len(short(name, 20)) == 20 and short(name, 20).endswith(".q_proj")
    assert short("a\nb\x00") == "a\ufffdb\ufffd" and short("fc") == "fc"


def test_points_that_lie_close_share_a_label():
    def spot(x: float, y: float) -> dict[str, tuple[float, float]]:
        return {"compressed": (x, y), "int8": (x / 4, y / 4)}

    points = [Point(1, spot(10, 20)), Point(2, spot(10.1, 20)), Point(3, spot(10, 20.1)),
              Point(4, spot(80, 200))]  # fmt: skip
    svg = roofline(points, multipliers=256, bandwidths={"memory": 2.0})
    assert ">1–3<" in svg and ">4<" in svg
    assert "array: 256 per cycle" in svg and "memory: 2 bytes per cycle" in svg
