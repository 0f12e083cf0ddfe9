"""The streamer against an independent encoder: payloads, idle memory, back-pressure, widths."""

from pathlib import Path

import pytest

from hwsim.simulator.traffic import Traffic
from rtl import StreamerConfig
from tests.rtl.conftest import SMALLEST
from tests.rtl.golden import Network, check

pytestmark = pytest.mark.rtl

TRAFFIC = {
    "free": Traffic(),
    "idle memory": Traffic(seed=1, ar_idle=0.6, r_idle=0.3),
    "back-pressure": Traffic(seed=2, weights_idle=0.4, report_idle=0.7),
    "all": Traffic(
        seed=3, ar_idle=0.3, r_idle=0.3, weights_idle=0.4, report_idle=0.9, descriptor_idle=0.9
    ),
}


def grids(config: StreamerConfig) -> list[tuple[int, int, int]]:
    """Blocks, inputs and group of codes with zeros: a beat a group, ragged groups, one group."""
    beat = max(1, config.bus_bits // config.tile_outputs)  # inputs of an output beat
    return [(9, beat, beat), (2, 6 * beat, beat), (3, 7 * beat, 3 * beat), (2, 2 * beat, 99 * beat)]


def payloads(config: StreamerConfig, seed: int) -> Network:
    """Every method, d and b, ragged in every way, after one another without a reset."""
    network = Network(seed)
    lengths = [1, 511, 512, 513, 1024, 1025, 37, 700, 2049]
    lengths_int8 = [64, 65, 63, 8 * config.bus_bits, 8 * config.bus_bits + 64, 1]
    zero_grids = grids(config)
    case = 0
    d = config.d_min
    while d <= config.d_max:
        for b in range(1, config.index_bits_max + 1):
            for kind in (
                {"signed": True},
                {"signed": False},
                {"signed": True, "parity": True},
            ):
                sub_vectors = lengths[case % len(lengths)]
                k = (1 << b) - (case % 3 if b > 2 else 0)
                book = network.add(sub_vectors, d, b, k=k, **kind)
                if case % 4 == 0:
                    network.add_codes(sub_vectors, 2 + case // 4 % 3)
                if case % 8 == 3:
                    network.add_zeros(*zero_grids[case // 8 % 4], 2 + case // 8 % 3, config)
                if case % 4 == 1:
                    network.add_int8(lengths_int8[case // 4 % len(lengths_int8)])
                if case % 5 == 2:
                    network.add(200 + case, d, b, k=k, book=book, **kind)
                case += 1
        d *= 2
    return network


@pytest.mark.parametrize("traffic", TRAFFIC.values(), ids=TRAFFIC.keys())
def test_payloads(config: StreamerConfig, traffic: Traffic, tmp_path: Path) -> None:
    network = payloads(config, traffic.seed)
    result = network.run(config, tmp_path, traffic=traffic)
    check(network, result, host_ahead=not traffic.descriptor_idle)


@pytest.mark.parametrize("traffic", [TRAFFIC["free"], TRAFFIC["all"]], ids=["free", "all"])
def test_smallest_instance(traffic: Traffic, tmp_path: Path) -> None:
    """d = 2, b = 10, two bursts of one granule at a time, two layers in flight."""
    network = payloads(SMALLEST, 7)
    result = network.run(SMALLEST, tmp_path, traffic=traffic)
    check(network, result, host_ahead=not traffic.descriptor_idle)


@pytest.mark.slow
@pytest.mark.parametrize("traffic", TRAFFIC.values(), ids=TRAFFIC.keys())
def test_payloads_at_512_bits(traffic: Traffic, tmp_path: Path) -> None:
    config = StreamerConfig(bus_bits=512, d_min=2, index_bits_max=10)
    network = payloads(config, traffic.seed)
    result = network.run(config, tmp_path, traffic=traffic)
    check(network, result, host_ahead=not traffic.descriptor_idle)


@pytest.mark.parametrize(
    "memory", ["bytes_per_cycle=5.5,latency=1", "bytes_per_cycle=64,latency=90"]
)
def test_other_memories(memory: str, tmp_path: Path) -> None:
    """Slower than the bus by a fraction, and faster than the bus but far away."""
    network = Network(3)
    for d, b in ((4, 3), (8, 8), (16, 5)):
        network.add(1500, d, b)
        network.add(1500, d, b, signed=False)
        network.add_int8(4000)
    check(network, network.run(StreamerConfig(), tmp_path, memory=f"ideal:{memory}"))


def test_codebook_shared_across_an_int8_layer(tmp_path: Path) -> None:
    network = Network(4)
    book = network.add(600, 8, 4)
    network.add_int8(640)
    network.add(600, 8, 4, book=book)
    network.add(600, 8, 4, book=book)
    result = network.run(StreamerConfig(), tmp_path)
    check(network, result)
    loaded, _, kept, _ = (layer.report["beats"] for layer in result.layers)
    assert loaded - kept == 16 * 8 // 16


def test_books_change_while_the_output_stands(config: StreamerConfig, tmp_path: Path) -> None:
    """A book is overwritten only when no lookup in it is under way, however long it stalls."""
    network = Network(8)
    for _ in range(60):
        network.add(64, 8, 1)
    traffic = Traffic(seed=8, weights_idle=0.9)
    check(network, network.run(config, tmp_path, traffic=traffic))


@pytest.mark.parametrize("traffic", [TRAFFIC["free"], TRAFFIC["all"]], ids=["free", "all"])
@pytest.mark.parametrize("d", [4, 8, 16])
def test_every_end_of_parity_signs(
    config: StreamerConfig, d: int, traffic: Traffic, tmp_path: Path
) -> None:
    """Last chunks around every length at which signs or weights take another granule.

    Their signs may end in beats that no output beat needs, or before the last output beat.
    """
    network = Network(9)
    book = network.add(1, d, 1, parity=True)
    ends = {512 * n // width for n in range(1, d + 1) for width in (d, d - 1)}
    for r in sorted({r + step for r in ends for step in (0, 1)} & set(range(1, 513))):
        network.add(r + 512 * (r % 3 == 0), d, 1, parity=True, book=book)
    result = network.run(config, tmp_path, traffic=traffic)
    check(network, result, host_ahead=not traffic.descriptor_idle)


@pytest.mark.parametrize("traffic", TRAFFIC.values(), ids=TRAFFIC.keys())
def test_codes(config: StreamerConfig, traffic: Traffic, tmp_path: Path) -> None:
    """All widths and lengths, with zeros and without, between layers that load codebooks."""
    network = Network(traffic.seed)
    for b in (2, 3, 4):
        for weights in (1, 511, 512, 513, 1025, 3000):
            network.add_codes(weights, b)
        for blocks, inputs, group in grids(config):
            network.add_zeros(blocks, inputs, group, b, config)
            network.add(100, 8, 3, parity=group == 1)
    result = network.run(config, tmp_path, traffic=traffic)
    check(network, result, host_ahead=not traffic.descriptor_idle)
