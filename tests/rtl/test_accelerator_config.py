"""Configurations of the accelerator: what is possible, and all that is wrong at once."""

import pytest

from rtl import AcceleratorConfig
from vq.container import ConfigError


def test_default_parts_fit_each_other():
    config = AcceleratorConfig()
    assert config.streamer.bus_bits == config.array.lanes == 128
    assert config.streamer.tile_outputs == config.array.rows == 16
    assert config.array.input_words * config.columns == config.input_bytes


def test_from_text():
    config = AcceleratorConfig.from_mapping({"array": "32x16", "bus_bits": "256"})
    assert (config.rows, config.columns, config.bus_bits) == (32, 16, 256)
    assert AcceleratorConfig.from_mapping(config.to_mapping()) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"array": "16"}, r"array must be ROWSxCOLUMNS, not '16'"),
        ({"bus_bit": 64}, r"key must be one of .*, not 'bus_bit' \(did you mean 'bus_bits'\?\)"),
        ({"rows": "many"}, r"rows must be an integer, not 'many'"),
        ({"rows": 16.0}, r"rows must be an integer, not 16.0"),
        ({"array": "8x8", "d_max": 16}, r"d_max must be .* at most columns = 8, not 16"),
        (
            {"array": "8x8", "d_max": 8, "bus_bits": 128},
            r"bus_bits must be at most rows \* columns = 64, not 128",
        ),
        (
            {"rows": 16, "array": "8x8"},
            r" 1 problem:\n- rows must be left out beside array=8x8, not be 16$",
        ),
        (
            {"array": "12x4"},
            r" 2 problems:\n- rows must be 8, .*, not 12\n- columns must be 8, .*, not 4$",
        ),
        (
            {"input_bytes": 1000},
            r"input_bytes must be a power of two from 16 \* columns = 256, not 1000$",
        ),
        (
            {"output_bytes": 64},
            r"output_bytes must be a power of two from 16 \* rows = 256, not 64$",
        ),
        ({"vector_unit": 2}, r" 1 problem:\n- vector_unit must be 0 or 1, not 2$"),
        (
            {"vector_unit": 1, "bus_bits": 64},
            r"bus_bits must be eight times rows and columns beside vector_unit = 1, 128, not 64;",
        ),
        (
            {"vector_unit": 1, "row_max": 64},
            r" 1 problem:\n- row_max must be a power of two from .* = 128 to 8192, not 64;",
        ),
    ],
)
def test_impossible(settings, message):
    with pytest.raises(ConfigError, match=message):
        AcceleratorConfig.from_mapping(settings)


def test_all_problems_at_once():
    with pytest.raises(ConfigError) as error:
        AcceleratorConfig(bus_bits=100, rows=24, fifo_bytes=3, accumulators=1)
    text = str(error.value)
    assert "accelerator configuration has 4 problems" in text
    for name in ("bus_bits", "rows", "fifo_bytes", "accumulators"):
        assert text.count(f"{name} must be") == 1
