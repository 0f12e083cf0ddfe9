"""Impossible vector units are refused, all problems at once."""

import pytest

from rtl.vector.config import VectorConfig
from vq.errors import ConfigError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lanes": 6}, "lanes must be 4, 8, 16 or 32, not 6"),
        ({"row_max": 1000}, "row_max must be a power of two from .* = 128 to 8192, not 1000"),
        ({"row_max": 16384}, "row_max must be .* to 8192, not 16384"),
        ({"lanes": 32, "row_max": 256}, "row_max must be .* lanes = 512 to 8192, not 256"),
        ({"row_max": 0}, "row_max must be .*, not 0"),
    ],
)
def test_impossible(settings, message):
    with pytest.raises(ConfigError, match=message):
        VectorConfig(**settings)


def test_sizes():
    config = VectorConfig(lanes=8, row_max=4096)
    assert (config.row_beats, config.buffer_beats) == (512, 1024)
    assert (config.total_bits, config.squares_bits) == (29, 43)
