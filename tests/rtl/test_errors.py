"""What goes wrong ends in a status; what follows still runs."""

from pathlib import Path

import pytest

from hwsim.simulator.streamer import Result
from hwsim.simulator.traffic import Traffic
from rtl import CodebookMode, Method, StreamerConfig
from tests.rtl.golden import Network, check_counters, same_beats

pytestmark = pytest.mark.rtl

CONFIG = StreamerConfig()


def require(network: Network, result: Result, statuses: list[str]) -> None:
    """Statuses as listed; every layer that is OK has its weights, refused ones have none."""
    assert [layer.report["status"] for layer in result.layers] == statuses
    for layer, expected in zip(result.layers, network.expected, strict=True):
        if layer.report["status"] == "OK":
            assert same_beats(layer.weights, expected, CONFIG.bus_bits)
        elif layer.report["status"] == "READ_ERROR":
            assert len(layer.weights) == -(-len(expected) // CONFIG.bus_bits) * CONFIG.bus_bits
        else:
            assert len(layer.weights) == layer.report["beats"] == layer.report["cycles"] == 0
    check_counters(result)


@pytest.mark.parametrize(
    ("override", "status"),
    [
        ({"log2_d": 1}, "SUB_VECTOR"),
        ({"log2_d": 5}, "SUB_VECTOR"),
        ({"log2_d": 255}, "SUB_VECTOR"),
        ({"index_bits": 0}, "INDEX_BITS"),
        ({"index_bits": 9}, "INDEX_BITS"),
        ({"index_bits": 5}, "LENGTH"),
        ({"chunks": 0}, "LENGTH"),
        ({"chunks": 4}, "LENGTH"),
        ({"chunks": 0xFFFFFFFF}, "LENGTH"),
        ({"last_granules": 0}, "LENGTH"),
        ({"last_granules": 9}, "LENGTH"),
        ({"stream_granules": 0}, "LENGTH"),
        ({"stream_granules": 1}, "LENGTH"),
        ({"stream_address": 32}, "ADDRESS"),
        ({"stream_address": 1 << 40}, "ADDRESS"),
        ({"stream_address": (1 << 40) - 64}, "ADDRESS"),
        ({"stream_address": (1 << 64) - 64}, "ADDRESS"),
        ({"codebook_address": 8}, "ADDRESS"),
        ({"codebook_granules": 0}, "CODEBOOK"),
        ({"codebook_granules": 33}, "CODEBOOK"),
        ({"codebook_mode": CodebookMode.NONE}, "CODEBOOK"),
    ],
    ids=lambda value: str(value),
)
def test_refused_descriptor(override: dict, status: str, tmp_path: Path) -> None:
    network = Network(1)
    network.add(1500, 8, 4)
    network.add(1500, 8, 4, **override)
    network.add_int8(1000)
    network.add(1500, 4, 4, signed=False)
    require(network, network.run(CONFIG, tmp_path), ["OK", status, "OK", "OK"])


@pytest.mark.parametrize(
    ("override", "status"),
    [
        ({"log2_d": 1}, "SUB_VECTOR"),
        ({"log2_d": 0}, "SUB_VECTOR"),
        ({"last_sign_granules": 0}, "LENGTH"),
        ({"last_sign_granules": 6}, "LENGTH"),
        ({"last_sign_granules": 8}, "LENGTH"),
        ({"last_granules": 6}, "LENGTH"),
        ({"method": Method.SSVQ}, "LENGTH"),
        ({"stream_granules": 4 + 7 + 4 + 7 + 4 + 8}, "LENGTH"),
    ],
    ids=lambda value: str(value),
)
def test_refused_parity_signs(override: dict, status: str, tmp_path: Path) -> None:
    network = Network(11)
    network.add(1500, 8, 4, parity=True)
    network.add(1500, 8, 4, parity=True, **override)
    network.add(1500, 4, 4, parity=True)
    require(network, network.run(CONFIG, tmp_path), ["OK", status, "OK"])


@pytest.mark.parametrize(
    ("override", "status"),
    [
        ({"index_bits": 0}, "INDEX_BITS"),
        ({"index_bits": 1}, "INDEX_BITS"),
        ({"index_bits": 5}, "INDEX_BITS"),
        ({"index_bits": 4}, "LENGTH"),
        ({"chunks": 0}, "LENGTH"),
        ({"chunks": 3}, "LENGTH"),
        ({"stream_granules": 0}, "LENGTH"),
        ({"group_beats": 0}, "LENGTH"),
        ({"block_beats": 0}, "LENGTH"),
        ({"codebook_address": 8}, "ADDRESS"),
        ({"codebook_granules": 0}, "CODEBOOK"),
        ({"codebook_mode": CodebookMode.LOAD}, "CODEBOOK"),
        ({"codebook_mode": CodebookMode.KEEP}, "CODEBOOK"),
    ],
    ids=lambda value: str(value),
)
def test_refused_codes(override: dict, status: str, tmp_path: Path) -> None:
    network = Network(13)
    book = network.add(600, 8, 4)
    network.add_zeros(2, 32, 16, 3, CONFIG)
    network.add_zeros(2, 32, 16, 3, CONFIG, **override)
    network.add_codes(1000, 2)
    network.add(600, 8, 4, book=book)
    require(network, network.run(CONFIG, tmp_path), ["OK", "OK", status, "OK", "OK"])


def test_zeros_are_refused_with_a_codebook(tmp_path: Path) -> None:
    network = Network(14)
    network.add(600, 8, 4, codebook_mode=CodebookMode.ZEROS)
    network.add_int8(600, codebook_mode=CodebookMode.ZEROS)
    network.add_int8(600)
    require(network, network.run(CONFIG, tmp_path), ["CODEBOOK", "CODEBOOK", "OK"])


def test_slave_error_in_zeros(tmp_path: Path) -> None:
    """It belongs to the layer of the zeros, not to the codebook of the layers around it."""
    network = Network(15)
    book = network.add(600, 8, 4)
    zeros = -(-len(network.image) // 64)
    network.add_zeros(2, 32, 16, 3, CONFIG)
    network.add(600, 8, 4, book=book)
    result = network.run(CONFIG, tmp_path, traffic=Traffic(error_granules=(zeros,)))
    require(network, result, ["OK", "READ_ERROR", "OK"])


@pytest.mark.parametrize("granules", [1, 5], ids=["too few", "too many"])
def test_rows_of_zeros_that_do_not_fit_their_layer(granules: int, tmp_path: Path) -> None:
    """The layer ends all the same, and the next one starts with its own rows."""
    network = Network(16)
    network.add_zeros(4, 32, 16, 3, CONFIG)
    network.add_zeros(4, 32, 16, 3, CONFIG, codebook_granules=granules)
    network.add_zeros(4, 32, 16, 4, CONFIG)
    result = network.run(CONFIG, tmp_path)
    network.expected[1] = result.layers[1].weights
    assert len(result.layers[1].weights) == 4 * 32 * 16
    require(network, result, ["OK"] * 3)


def test_contradiction_that_passes_the_checks(tmp_path: Path) -> None:
    """Lengths that could belong together but do not leave every other layer as it was."""
    network = Network(12)
    network.add(430, 8, 4, parity=True)
    network.add(430, 8, 4, parity=True, last_granules=6)  # 7; 6 granules of signs fit both
    network.expected[1] = network.expected[1][:-512]
    network.add(430, 8, 4, parity=True)
    require(network, network.run(CONFIG, tmp_path), ["OK"] * 3)


def test_unknown_method_and_int8_with_codebook(tmp_path: Path) -> None:
    network = Network(2)
    network.add_int8(100, codebook_mode=CodebookMode.LOAD)
    network.add(600, 8, 4)
    network.descriptors[1] |= 0x40  # a method that does not exist
    network.add_int8(100, stream_granules=0)
    network.add_int8(100)
    result = network.run(CONFIG, tmp_path)
    require(network, result, ["CODEBOOK", "METHOD", "LENGTH", "OK"])


def test_kept_codebook_must_fit(tmp_path: Path) -> None:
    """A codebook is kept only after a load that worked, with the same d and b."""
    network = Network(3)
    book = network.add(600, 8, 4, codebook_mode=CodebookMode.KEEP)  # none yet
    book = network.add(600, 8, 4)
    network.add(600, 8, 4, book=book)
    network.add(600, 4, 4, codebook_mode=CodebookMode.KEEP)  # other d
    network.add(600, 8, 3, codebook_mode=CodebookMode.KEEP)  # other b
    network.add(600, 8, 4, book=book)
    network.add(600, 8, 4, stream_granules=1)  # a load that is refused ...
    network.add(600, 8, 4, book=book)  # ... leaves nothing to keep
    result = network.run(CONFIG, tmp_path)
    require(
        network,
        result,
        ["CODEBOOK", "OK", "OK", "CODEBOOK", "CODEBOOK", "OK", "LENGTH", "CODEBOOK"],
    )


@pytest.mark.parametrize(
    "traffic",
    [
        Traffic(),
        Traffic(seed=5, r_idle=0.4, weights_idle=0.5),
        Traffic(seed=6, weights_idle=0.85),  # beats of several layers wait behind one another
    ],
)
def test_many_refused_layers_among_tiny_ones(traffic: Traffic, tmp_path: Path) -> None:
    """Reports of refused layers keep their place even if the next weights are already there."""
    network = Network(4)
    book = network.add(32, 4, 1, signed=False)
    statuses = ["OK"]
    for number in range(120):
        refused = number % 5 in (0, 2, 3)
        override = {"index_bits": 0} if refused else {}
        network.add(32, 4, 1, signed=False, book=book, **override)
        statuses.append("INDEX_BITS" if refused else "OK")
    result = network.run(CONFIG, tmp_path, traffic=traffic)
    require(network, result, statuses)
    held = sum(layer.report["decoder_cycles"] for layer in result.layers)
    assert held > 0 or not traffic.weights_idle


def test_slave_error_in_stream_and_codebook(tmp_path: Path) -> None:
    """The error belongs to the layer; a broken codebook also to the layers that keep it."""
    network = Network(5)
    network.add(600, 8, 4)
    before = len(network.image) // 64
    network.add_int8(6400)
    codebook = -(-len(network.image) // 64)
    book = network.add(600, 8, 4)
    network.add_int8(64)
    network.add(600, 8, 4, book=book)
    network.add(600, 8, 4)
    traffic = Traffic(error_granules=(before + 40, codebook))
    result = network.run(CONFIG, tmp_path, traffic=traffic)
    require(network, result, ["OK", "READ_ERROR", "READ_ERROR", "OK", "READ_ERROR", "OK"])


def test_decode_error_behind_the_memory(tmp_path: Path) -> None:
    network = Network(6)
    network.add(600, 8, 4, stream_address=1 << 30)
    network.add_int8(640, stream_address=1 << 30)
    network.add(600, 8, 4)
    require(network, network.run(CONFIG, tmp_path), ["READ_ERROR", "READ_ERROR", "OK"])


def test_run_of_refused_layers_only(tmp_path: Path) -> None:
    network = Network(7)
    for _ in range(20):
        network.add(64, 8, 4, index_bits=0)
    result = network.run(CONFIG, tmp_path, traffic=Traffic(report_idle=0.8))
    require(network, result, ["INDEX_BITS"] * 20)
    assert result.bus.beats == 0


def test_every_method_is_covered() -> None:
    """A method that is added must get its own payload tests."""
    assert list(Method.__members__) == ["INT8", "SSVQ", "VQ", "SSVQ_PARITY", "CODES"]
