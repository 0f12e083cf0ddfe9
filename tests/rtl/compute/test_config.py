"""Impossible arrays are refused, all problems at once."""

import pytest

from rtl.compute.config import ArrayConfig
from vq.errors import ConfigError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rows": 12}, "rows must be 8, 16, 32 or 64, not 12"),
        ({"rows": 8, "columns": 8}, "lanes must be .* at most rows \\* columns = 64, not 128"),
        ({"lanes": 32}, "lanes must be 64, 128, 256 or 512"),
        ({"columns": 8}, "d_max must be 1, 2, 4, 8 or 16 and at most columns = 8, not 16"),
        ({"accumulators": 1}, "accumulators must be 2 to 65536, not 1"),
        ({"scale_lanes": 32}, "scale_lanes must be a power of two up to rows = 16, not 32"),
        ({"input_words": 100}, "input_words must be a power of two from 16, not 100"),
    ],
)
def test_impossible(settings, message):
    with pytest.raises(ConfigError, match=message):
        ArrayConfig(**settings)


def test_all_problems_at_once():
    with pytest.raises(ConfigError) as raised:
        ArrayConfig(rows=3, columns=7, scale_lanes=5)
    assert all(word in str(raised.value) for word in ("rows", "columns", "scale_lanes"))
