"""StreamerConfig: every impossible instance is refused, with all problems at once."""

import pytest

from rtl import StreamerConfig
from vq.container import ConfigError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bus_bits": 96}, r"- bus_bits must be 64, 128, 256 or 512, not 96$"),
        ({"bus_bits": 128.0}, r"- bus_bits must be an integer, not 128\.0$"),
        ({"d_min": 8}, r"- d_min must be 2 or 4, not 8$"),
        ({"d_min": 4, "d_max": 2}, r"- d_max must be .* at least d_min = 4, not 2$"),
        ({"index_bits_max": 11}, r"- index_bits_max must be 5 to 10, not 11$"),
        ({"address_bits": 65}, r"- address_bits must be 16 to 64, not 65$"),
        (
            {"burst_bytes": 4096, "fifo_bytes": 8192, "bus_bits": 64},
            r"- burst_bytes must be .* 64 to 2048 \(.* 256 beats of bus_bits = 64\), not 4096$",
        ),
        ({"burst_bytes": 96}, r"- burst_bytes must be a power of two .*, not 96$"),
        (
            {"fifo_bytes": 512},
            r"- fifo_bytes must be .* 2048 \(twice burst_bytes\) to .*, not 512$",
        ),
        ({"outstanding_bursts": 0}, r"- outstanding_bursts must be 2 to 64, not 0$"),
        ({"layers_in_flight": 1}, r"- layers_in_flight must be 2 to 16, not 1$"),
    ],
)
def test_impossible_instance(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        StreamerConfig(**settings)


def test_all_problems_in_one_error() -> None:
    with pytest.raises(ConfigError, match=r"^accelerator configuration has 3 problems:\n- bus_"):
        StreamerConfig(bus_bits=1, d_min=1, layers_in_flight=99)


def test_from_mapping() -> None:
    assert StreamerConfig.from_mapping({"bus_bits": "64"}) == StreamerConfig(bus_bits=64)
    config = StreamerConfig(bus_bits=256, d_min=2)
    assert StreamerConfig.from_mapping(config.to_mapping()) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bus_bit": 64}, r"not 'bus_bit' \(did you mean 'bus_bits'\?\)$"),
        ({"bus_bits": "wide"}, r"- bus_bits must be an integer, not 'wide'$"),
    ],
)
def test_from_mapping_refuses(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        StreamerConfig.from_mapping(settings)
