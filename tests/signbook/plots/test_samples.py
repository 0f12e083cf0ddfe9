"""Sample sheets: what is drawn is what was given, without pictures."""

import re

import numpy as np
import pytest

from signbook.plots import sample_sheet
from vq.errors import ConfigError


def test_every_shade_is_where_it_was():
    image = np.arange(8)[None, None, :].repeat(2, 1) / 7  # two rows of all eight shades
    image[0, 1, 2:] = 0.51
    svg = sample_sheet({"one": image})
    drawn = np.zeros((2, 8))
    for opacity, path in re.findall(r'fill-opacity="([\d.]+)"[^>]* d="([^"]+)"', svg):
        for x, y, length in re.findall(r"M(\d+) (\d+)h(\d+)v1h-\3z", path):
            drawn[int(y), int(x) : int(x) + int(length)] += float(opacity)
    assert np.abs(drawn - image[0]).max() < 1 / 14 + 0.01
    assert svg.count("fill-opacity") == 7 and "M2 1h6" in svg  # white is paper; equal ones are one


def test_arms_stand_side_by_side_and_equal_noise_in_equal_places():
    images = np.zeros((3, 4, 4))
    svg = sample_sheet({"a & b": images, "other": images}, columns=2)
    places = [(float(x), float(y)) for x, y in re.findall(r"translate\(([\d.]+) ([\d.]+)\)", svg)]
    apart = places[3][0] - places[0][0]
    assert [(x + apart, y) for x, y in places[:3]] == places[3:]
    assert places[0][1] == places[1][1] < places[2][1] and places[0][0] == places[2][0]
    assert ">a &amp; b<" in svg and svg.startswith('<svg class="plot"')


def test_sheets_follow_the_screen_and_hold_no_pictures():
    svg = sample_sheet({"a": np.random.default_rng(0).normal(size=(2, 4, 4))})
    assert "<image" not in svg and "data:" not in svg
    assert not re.search(r'(fill|stroke)="#', svg), "every colour has a dark one"


@pytest.mark.parametrize(
    ("arms", "columns", "message"),
    [
        ({}, 4, "not none in 4 columns$"),
        ({"a": np.zeros((2, 4, 4)), "b": np.zeros((1, 4, 4))}, 4, r"'b' of \[1, 4, 4\] in 4"),
        ({"a": np.zeros((2, 1, 4, 4))}, 4, r"'a' of \[2, 1, 4, 4\]"),
        ({"a": np.zeros((0, 4, 4))}, 4, r"'a' of \[0, 4, 4\]"),
        ({"a": np.zeros((2, 4, 4))}, 0, "in 0 columns$"),
    ],
)
def test_sheets_that_cannot_be_drawn(arms, columns, message):
    with pytest.raises(ConfigError, match=f"^a sample sheet must have arms of .*{message}"):
        sample_sheet(arms, columns=columns)


def test_samples_that_are_no_numbers():
    with pytest.raises(ConfigError, match=r"^samples of 'a' must be finite, not NaN or infinite$"):
        sample_sheet({"a": np.full((1, 2, 2), np.nan)})
