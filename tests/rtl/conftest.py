"""Instances that the hardware tests share: few, because each costs a Verilator build."""

import pytest

from rtl import StreamerConfig

#: Everything at a limit: shortest sub-vectors, widest index, two bursts of one granule at a time.
SMALLEST = StreamerConfig(
    bus_bits=64,
    d_min=2,
    d_max=8,
    index_bits_max=10,
    burst_bytes=64,
    outstanding_bursts=2,
    fifo_bytes=128,
    layers_in_flight=2,
    address_bits=64,
    tile_outputs=64,
)


@pytest.fixture(params=[64, 128, 256])
def config(request: pytest.FixtureRequest) -> StreamerConfig:
    """Default instance of each bus width, rows of zeros longer and shorter than a beat."""
    return StreamerConfig(bus_bits=request.param, tile_outputs=8 if request.param == 256 else 16)
