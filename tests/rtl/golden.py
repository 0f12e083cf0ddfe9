"""An encoder of ``vqstream/1`` streams, written from the specification alone.

It shares no code with ``vq.container``, so a mistake there and here would have to be the same one.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hwsim.program.weights import pack_descriptor
from hwsim.simulator.streamer import Job, Result
from hwsim.simulator.traffic import Traffic
from hwsim.simulator.verilator import run
from rtl import CodebookMode, Method, StreamerConfig


def bits_of(values: np.ndarray, width: int) -> np.ndarray:
    """[n] integers to [n, width] bits, least significant first."""
    return (values[:, None] >> np.arange(width)) & 1


def granules(bits: np.ndarray) -> bytes:
    """Bits, first one lowest, filled up with zeros to 64 bytes."""
    filled = np.zeros(-(-len(bits) // 512) * 512, np.uint8)
    filled[: len(bits)] = bits
    return np.packbits(filled, bitorder="little").tobytes()


def encode(indices: np.ndarray, signs: np.ndarray | None, b: int) -> bytes:
    """Chunks of 512 sub-vectors: b planes of 64 bytes, then those signs that are stored."""
    stream = b""
    for at in range(0, len(indices), 512):
        for plane in bits_of(indices[at : at + 512], b).T:
            stream += granules(plane)
        if signs is not None:
            stream += granules(signs[at : at + 512].reshape(-1))
    return stream


@dataclass
class Network:
    """A memory image that grows layer by layer, with the weights to expect."""

    seed: int = 0
    image: bytearray = field(default_factory=lambda: bytearray(256))
    descriptors: list[int] = field(default_factory=list)
    expected: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def place(self, data: bytes) -> int:
        """Append bytes at the next 64-byte boundary; returns their address."""
        self.image.extend(bytes(-len(self.image) % 64))
        address = len(self.image)
        self.image.extend(data)
        self.image.extend(bytes(-len(self.image) % 64))
        return address

    def add_int8(self, weights: int, **override: Any) -> None:
        """Append an int8 layer of random weights."""
        values = self.rng.integers(-128, 128, weights, dtype=np.int8)
        address = self.place(values.tobytes())
        fields = {
            "method": Method.INT8,
            "stream_address": address,
            "stream_granules": -(-weights // 64),
        }
        self.descriptors.append(pack_descriptor(fields | override))
        self.expected.append(values)

    def add(
        self,
        sub_vectors: int,
        d: int,
        b: int,
        *,
        signed: bool = True,
        parity: bool = False,
        k: int | None = None,
        book: np.ndarray | None = None,
        **override: Any,
    ) -> np.ndarray:
        """Append an ssvq or vq layer; ``book`` keeps the last codebook. Returns the codebook."""
        k = k or 1 << b
        keep = book is not None
        if book is None:
            low, high = (0, 128) if signed else (-128, 128)
            book = self.rng.integers(low, high, (k, d)).astype(np.int8)
        book_address = 0 if keep else self.place(book.tobytes())
        indices = self.rng.integers(0, k, sub_vectors)
        signs = self.rng.integers(0, 2, (sub_vectors, d)) if signed else None
        if signs is not None and parity:
            signs[:, -1] = signs[:, :-1].sum(axis=1) % 2
        weights = book[indices].astype(np.int16)
        if signs is not None:
            weights = np.where(signs, -weights, weights)
        # The last group of 512 weights is filled up with index 0 and positive signs.
        filling = book[np.zeros(-sub_vectors % (512 // d), int)]
        weights = np.concatenate([weights, filling])
        stream = encode(indices, signs[:, :-1] if signs is not None and parity else signs, b)
        chunks = -(-sub_vectors // 512)
        last = sub_vectors - (chunks - 1) * 512
        ssvq = Method.SSVQ_PARITY if parity else Method.SSVQ
        fields = {
            "method": ssvq if signed else Method.VQ,
            "codebook_mode": CodebookMode.KEEP if keep else CodebookMode.LOAD,
            "log2_d": d.bit_length() - 1,
            "index_bits": b,
            "codebook_address": book_address,
            "codebook_granules": -(-k * d // 64),
            "stream_address": self.place(stream),
            "stream_granules": len(stream) // 64,
            "chunks": chunks,
            "last_granules": -(-last * d // 512),
            "last_sign_granules": -(-last * (d - 1) // 512) if parity else 0,
        }
        self.descriptors.append(pack_descriptor(fields | override))
        self.expected.append(weights.astype(np.int8).reshape(-1))
        return book

    def add_codes(self, weights: int, b: int, **override: Any) -> None:
        """Append a layer of random codes without zeros of their own."""
        codes = self.rng.integers(0, 1 << b, weights)
        filled = np.pad(codes, (0, -weights % 512))  # code 0 is a weight, too
        self._add_codes(codes, b, filled - (1 << (b - 1)), override)

    def add_zeros(
        self, blocks: int, inputs: int, group: int, b: int, config: StreamerConfig, **override: Any
    ) -> None:
        """Append codes with a zero for each output and group of inputs."""
        tile = config.tile_outputs
        codes = self.rng.integers(0, 1 << b, (blocks, inputs, tile))
        zeros = self.rng.integers(0, 1 << b, (blocks, -(-inputs // group), tile))
        weights = codes - np.repeat(zeros, group, axis=1)[:, :inputs]
        data = zeros.astype(np.uint8).tobytes()
        # Behind the last block, blocks and groups go on with the padding of the zeros, then with
        # the last row of it.
        rows = np.frombuffer(data + bytes(-len(data) % 64), np.uint8).reshape(-1, tile)
        row, filling = zeros.shape[0] * zeros.shape[1], []
        for at in range(-(blocks * inputs) % (512 // tile)):
            if at and (at % inputs) % group == 0:
                row += 1
            filling.append(-rows[min(row, len(rows) - 1)].astype(int))
        filled = np.concatenate([weights.reshape(-1), *filling])
        fields = {
            "codebook_mode": CodebookMode.ZEROS,
            "codebook_address": self.place(data),
            "codebook_granules": -(-len(data) // 64),
            "group_beats": -(-group * tile // config.bus_bits),
            "block_beats": inputs * tile // config.bus_bits,
        }
        self._add_codes(codes.reshape(-1), b, filled, fields | override)

    def _add_codes(
        self, codes: np.ndarray, b: int, expected: np.ndarray, fields: dict[str, Any]
    ) -> None:
        stream = encode(codes, None, b)
        own = {
            "method": Method.CODES,
            "index_bits": b,
            "stream_address": self.place(stream),
            "stream_granules": len(stream) // 64,
            "chunks": -(-len(codes) // 512),
        }
        self.descriptors.append(pack_descriptor(own | fields))
        self.expected.append(expected.astype(np.int8))

    def run(
        self,
        config: StreamerConfig,
        folder: Path,
        *,
        traffic: Traffic | None = None,
        memory: str | None = None,
    ) -> Result:
        """Stream all layers; memory gives one beat per cycle unless told otherwise."""
        path = folder / "image.bin"
        path.write_bytes(self.image)
        memory = memory or f"ideal:bytes_per_cycle={config.bus_bytes},latency=20"
        return run(config, Job(path, self.descriptors, memory, traffic or Traffic()))


def check(network: Network, result: Result, *, host_ahead: bool = True) -> None:
    """Require every weight to be right, every cycle to be charged, every byte to be counted."""
    assert len(result.layers) == len(network.expected)
    for number, (layer, expected) in enumerate(zip(result.layers, network.expected, strict=True)):
        assert layer.report["status"] == "OK", f"layer {number}"
        assert same_beats(layer.weights, expected, result.lanes), f"layer {number}"
    check_counters(result, host_ahead=host_ahead)


def same_beats(got: np.ndarray, expected: np.ndarray, lanes: int) -> bool:
    """Whether exactly the expected beats left, the last one filled up with zeros."""
    return np.array_equal(got, np.pad(expected, (0, -len(expected) % lanes)))


def check_counters(result: Result, *, host_ahead: bool = True) -> None:
    """Reports are consistent in themselves and with what the memory saw.

    A host that lets the machine run out of descriptors has idle cycles that no layer is charged.
    """
    reports = [layer.report for layer in result.layers]
    for report in reports:
        parts = [v for name, v in report.items() if name.endswith("_cycles")]
        assert sum(parts) == report["cycles"]
    charged = sum(r["cycles"] for r in reports)
    assert charged == result.cycles if host_ahead else 0 < charged <= result.cycles
    assert sum(r["beats"] for r in reports) == result.bus.beats
    assert sum(r["bursts"] for r in reports) == result.bus.bursts
