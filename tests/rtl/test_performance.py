"""Cycle counts with ideal memory. The simulation is deterministic, so the limits are exact."""

from pathlib import Path

import pytest

from hwsim.simulator.streamer import Result
from hwsim.simulator.traffic import Traffic
from rtl import StreamerConfig
from tests.rtl.golden import Network, check

pytestmark = pytest.mark.rtl

MILLION = 1 << 20


def streamed(network: Network, config: StreamerConfig, folder: Path, **kwargs: object) -> Result:
    result = network.run(config, folder, **kwargs)
    check(network, result)
    return result


@pytest.mark.parametrize("bus_bits", [64, 128])
def test_million_weights(bus_bits: int, tmp_path: Path) -> None:
    """The bus never idles, and the speed-up over int8 is that of the bytes."""
    config = StreamerConfig(bus_bits=bus_bits)
    plain = Network()
    plain.add_int8(MILLION)
    int8 = streamed(plain, config, tmp_path)
    for b in (4, 8):
        network = Network(b)
        network.add(MILLION // 8, 8, b)
        result = streamed(network, config, tmp_path)
        assert result.bus.utilisation >= 0.98
        speedup = int8.cycles / result.cycles
        traffic_ratio = int8.bus.read_bytes / result.bus.read_bytes
        assert speedup >= 0.97 * traffic_ratio


def test_chain_of_small_layers(config: StreamerConfig, tmp_path: Path) -> None:
    """24 layers of 4 to 16 thousand weights, each with its own codebook, without a pause."""
    network, plain = Network(), Network()
    for weights in (64 * 64, 192 * 64, 256 * 64) * 8:
        network.add(weights // 8, 8, 4)
        plain.add_int8(weights)
    result = streamed(network, config, tmp_path)
    int8 = streamed(plain, config, tmp_path)
    assert result.bus.utilisation == 1.0
    speedup = int8.cycles / result.cycles
    assert speedup >= 0.97 * int8.bus.read_bytes / result.bus.read_bytes


@pytest.mark.parametrize(("d", "b", "k"), [(8, 8, 256), (4, 8, 256), (16, 8, 256), (8, 6, 64)])
def test_codebooks_load_under_the_layer_before(
    config: StreamerConfig, d: int, b: int, k: int, tmp_path: Path
) -> None:
    """256 codewords take 256 cycles; only the first book of a chain is waited for."""
    network = Network()
    for _ in range(6):
        network.add(9216, d, b, k=k)
    result = streamed(network, config, tmp_path)
    waits = [layer.report["codebook_cycles"] for layer in result.layers]
    assert waits[0] <= k
    assert sum(waits[1:]) == 0
    assert result.bus.utilisation >= 0.98


@pytest.mark.parametrize(("d", "b"), [(4, 1), (4, 8), (8, 3), (8, 6), (16, 4), (16, 8)])
def test_utilisation_for_every_rate(config: StreamerConfig, d: int, b: int, tmp_path: Path) -> None:
    """One beat per cycle for every d and b, with a consumer that is always ready."""
    network = Network()
    network.add(960 // d * 512, d, b)
    assert streamed(network, config, tmp_path).bus.utilisation >= 0.98


@pytest.mark.parametrize(("d", "b"), [(4, 1), (4, 8), (8, 4), (16, 1), (16, 8)])
def test_parity_signs_make_layers_faster(
    config: StreamerConfig, d: int, b: int, tmp_path: Path
) -> None:
    """W d / (b + d - 1) weights per cycle: the gear box takes no time of its own."""
    network = Network()
    chunks = 480 // d
    network.add(chunks * 512, d, b, parity=True, k=min(1 << b, 32))
    result = streamed(network, config, tmp_path)
    assert result.bus.utilisation >= 0.98
    start_up = 64 + b * config.granule_beats + (1 << b) * d // config.bus_bytes + (1 << b)
    assert result.cycles <= chunks * (b + d - 1) * config.granule_beats + start_up


@pytest.mark.parametrize("b", [2, 3, 4])
def test_codes_at_the_rate_of_the_bus(config: StreamerConfig, b: int, tmp_path: Path) -> None:
    """W / b weights per cycle; zeros cost the beats that they are, and a start."""
    plain, zeros = Network(), Network()
    blocks, inputs, group = 8, 1024, 64
    weights = blocks * inputs * config.tile_outputs
    plain.add_codes(weights, b)
    zeros.add_zeros(blocks, inputs, group, b, config)
    beats = weights * b // config.bus_bits
    without = streamed(plain, config, tmp_path)
    assert without.bus.beats == beats
    assert without.bus.utilisation == 1.0
    assert without.cycles <= beats + 64 + b * config.granule_beats
    with_zeros = streamed(zeros, config, tmp_path)
    more_beats = weights // group // config.bus_bytes
    assert with_zeros.bus.beats == beats + more_beats
    assert with_zeros.bus.utilisation == 1.0
    assert with_zeros.cycles <= without.cycles + more_beats + 8


@pytest.mark.parametrize(("d", "b"), [(8, 4), (16, 8)])
def test_parity_signs_and_a_consumer_at_the_average_rate(d: int, b: int, tmp_path: Path) -> None:
    config = StreamerConfig()
    network = Network()
    network.add(60 * 512, d, b, parity=True)
    traffic = Traffic(weights_idle=1 - 1.02 * d / (b + d - 1), even_weights=True)
    assert streamed(network, config, tmp_path, traffic=traffic).bus.utilisation >= 0.98


@pytest.mark.parametrize(("d", "b"), [(8, 4), (8, 8), (4, 8), (16, 8)])
def test_consumer_at_the_average_rate(d: int, b: int, tmp_path: Path) -> None:
    """The FIFO of sign beats evens out the output bursts: W d / (b + d) weights per cycle do."""
    config = StreamerConfig()
    network = Network()
    network.add(60 * 512, d, b)
    # A little above the average, because rounding makes single intervals longer than it.
    traffic = Traffic(weights_idle=1 - 1.02 * d / (b + d), even_weights=True)
    assert streamed(network, config, tmp_path, traffic=traffic).bus.utilisation >= 0.98


@pytest.mark.parametrize(("d", "b"), [(8, 4), (16, 8), (8, 8), (4, 8)])
def test_plain_vq_is_limited_by_the_output_port(d: int, b: int, tmp_path: Path) -> None:
    """Without signs a beat carries W d / b weights: with d > b the port is busy all the time."""
    config = StreamerConfig()
    network = Network()
    network.add(60 * 512, d, b, signed=False)
    result = streamed(network, config, tmp_path)
    report = result.layers[0].report
    outputs = 60 * 512 * d // config.bus_bits
    inputs = 60 * b * config.granule_beats
    assert report["busy_cycles"] == outputs
    start_up = 64 + b * config.granule_beats + (1 << b) * d // config.bus_bytes + (1 << b)
    assert report["cycles"] <= max(inputs, outputs) + start_up


def test_stall_causes(tmp_path: Path) -> None:
    """Each cause grows when, and only when, it is the reason."""
    config = StreamerConfig()
    network = Network()
    network.add(20 * 512, 8, 8)
    network.add(20 * 512, 8, 4)
    free = [layer.report for layer in streamed(network, config, tmp_path).layers]
    slow = [
        layer.report
        for layer in streamed(
            network, config, tmp_path, memory="ideal:bytes_per_cycle=4,latency=20"
        ).layers
    ]
    blocked = [
        layer.report
        for layer in streamed(
            network, config, tmp_path, traffic=Traffic(weights_idle=0.9, even_weights=True)
        ).layers
    ]
    assert 0 < free[0]["codebook_cycles"] <= 256  # 256 codewords take 256 cycles
    assert free[1]["codebook_cycles"] == 0  # loaded under the layer before
    for report in (*free, *slow):
        assert report["compute_cycles"] == report["decoder_cycles"] == 0
    for fast, starved in zip(free, slow, strict=True):
        assert starved["busy_cycles"] == fast["busy_cycles"]
        assert starved["memory_cycles"] > 3 * fast["memory_cycles"]
    for report in blocked:
        assert report["compute_cycles"] > 8 * report["busy_cycles"]
        assert report["memory_cycles"] < report["busy_cycles"]
