"""Bytes written by hand, and a committed file that must never change."""

import numpy as np
import pytest

from tests.golden import make
from vq.container import Layer, open_container, write_container

from .naive import NaiveFile

ONE = np.ones(1, np.float32)


def granules(*starts: bytes) -> bytes:
    """Runs of 64 bytes that start as given and go on with zeros."""
    return b"".join(start.ljust(64, b"\0") for start in starts)


def expect(layer: Layer, stream: bytes, weight: list[list[float]], folder) -> None:
    assert layer.stream.tobytes() == stream
    path = folder / "golden.vq.safetensors"
    write_container(path, [layer])
    with open_container(path) as file:
        assert file.weight(layer.geometry.name).tolist() == weight


def test_ssvq_by_hand(tmp_path):
    # Two outputs, four inputs, d = 2: outputs are innermost in the stream.
    #
    #              inputs 0,1   2,3       sub-vector   0     1     2     3
    #   output 0           0     2        index        2     0     1     2
    #   output 1           1     3        codeword    5,6   1,2   3,4   5,6
    #                                     signs       -,+   +,-   -,-   +,+
    #   plane 0: bit 0 of 2 0 1 2 -> lane 2          0b0100
    #   plane 1: bit 1 of 2 0 1 2 -> lanes 0, 3      0b1001
    #   signs, first in bit 0:  1,0  0,1  1,1  0,0   0b00_11_10_01
    layer = Layer.ssvq(
        "a", shape=(2, 4), scale=ONE / 2,
        codebook=np.array([[1, 2], [3, 4], [5, 6]], np.int8),
        indices=np.array([2, 0, 1, 2]),
        signs=np.array([[1, 0], [0, 1], [1, 1], [0, 0]], bool),
    )  # fmt: skip
    stream = granules(b"\x04", b"\x09", b"\x39")
    expect(layer, stream, [[-2.5, 3, -1.5, -2], [0.5, -1, 2.5, 3]], tmp_path)


def test_ssvq_parity_by_hand(tmp_path):
    # One output, six inputs, d = 3; the third sign makes the count of minus signs even.
    #   sub-vector   0       1
    #   index        1       0           plane 0: lane 0               0b01
    #   signs       -,+(-)  +,-(-)       stored: 1,0  0,1              0b10_01
    layer = Layer.ssvq(
        "a", shape=(1, 6), scale=ONE, parity=True,
        codebook=np.array([[1, 2, 3], [4, 5, 6]], np.int8),
        indices=np.array([1, 0]), signs=np.array([[1, 0, 1], [0, 1, 1]], bool),
    )  # fmt: skip
    expect(layer, granules(b"\x01", b"\x09"), [[-4, 5, -6, 1, -2, -3]], tmp_path)


def test_vq_along_outputs_by_hand(tmp_path):
    # Three outputs, two inputs, d = 2 along the outputs, blocks of two outputs = one row.
    #               input 0   1
    #   outputs 0,1       0   1       sub-vector   0         1      2      3
    #   outputs 2,-       2   3       index        3         1      0      2
    #                                 codeword    -128,127   2,-2   1,(-1) 3,(-3)
    #   plane 0: bit 0 of 3 1 0 2 -> lanes 0, 1   0b0011
    #   plane 1: bit 1 of 3 1 0 2 -> lanes 0, 3   0b1001
    layer = Layer.vq(
        "a", shape=(3, 2), axis="out", tile_outputs=2, scale=np.array([1, 2, 4], np.float32),
        codebook=np.array([[1, -1], [2, -2], [3, -3], [-128, 127]], np.int8),
        indices=np.array([3, 1, 0, 2]),
    )  # fmt: skip
    expect(layer, granules(b"\x03", b"\x09"), [[-128, 2], [254, -4], [4, 12]], tmp_path)


def test_int8_by_hand(tmp_path):
    # Blocks of two outputs:  (0,0) (1,0) (0,1) (1,1)   (2,0) (2,1)
    integers = np.array([[1, 2], [-1, -128], [127, 0]], np.int8)
    layer = Layer.int8("a", integers=integers, scale=ONE, tile_outputs=2)
    stream = granules(b"\x01\xff\x02\x80\x7f\x00")
    expect(layer, stream, integers.tolist(), tmp_path)


def test_int8_convolution_by_hand(tmp_path):
    # One output, two channels, two taps: column = tap * 2 + channel.
    integers = np.array([[1, 2, 3, 4]], np.int8)
    layer = Layer.int8("a", op="conv1d", shape=(1, 2, 2), integers=integers, scale=ONE)
    expect(layer, granules(b"\x01\x02\x03\x04"), [[[1, 3], [2, 4]]], tmp_path)


def test_int4_by_hand(tmp_path):
    # lane            0      1      2      3      4      5
    # weight        (0,0)  (1,0)  (0,1)  (1,1)  (0,2)  (1,2)
    # code            1      0      2      8     15      7
    # plane 0: lanes 0, 4, 5  0b110001     plane 1: lanes 2, 4, 5  0b110100
    # plane 2: lanes 4, 5     0b110000     plane 3: lanes 3, 4     0b011000
    layer = Layer.grouped(
        "a", method="int4", group=2, codes=np.array([[1, 2, 15], [0, 8, 7]], np.uint8),
        group_scales=np.array([[1, 0.5], [2, 4]], np.float16),
        group_zeros=np.array([[1, 15], [8, 0]], np.uint8),
    )  # fmt: skip
    assert layer.group_scales.tolist() == [1, 2, 0.5, 4]  # outputs innermost, as the weights
    assert layer.group_zeros.tolist() == [1, 8, 15, 0]
    stream = granules(b"\x31", b"\x34", b"\x30", b"\x18")
    expect(layer, stream, [[0, 1, 0], [-16, 0, 28]], tmp_path)


@pytest.mark.parametrize(
    ("method", "codes", "stream", "weight"),
    [
        # 5 1 7 2: plane 0 lanes 0 1 2, plane 1 lanes 2 3, plane 2 lanes 0 2; the zero is 4
        ("int3", [5, 1, 7, 2], granules(b"\x07", b"\x0c", b"\x05"), [1, -3, 3, -2]),
        # 3 0 1 2: plane 0 lanes 0 2, plane 1 lanes 0 3; the zero is 2
        ("int2", [3, 0, 1, 2], granules(b"\x05", b"\x09"), [1, -2, -1, 0]),
    ],
)
def test_int3_and_int2_by_hand(tmp_path, method: str, codes, stream: bytes, weight):
    layer = Layer.grouped(
        "a", method=method, group=4, codes=np.array([codes], np.uint8),
        group_scales=np.ones((1, 1), np.float16), group_zeros=None,
    )  # fmt: skip
    expect(layer, stream, [weight], tmp_path)


def test_last_chunk_by_hand():
    # 513 sub-vectors, d = 2, k = 2: one full chunk, then one sub-vector.
    #   byte   0          64                192        256
    #         | plane 0  | signs, 128 bytes | plane 0  | signs, cut to 64 |
    negative = np.zeros((513, 2), bool)
    negative[511, 1] = negative[512, 0] = True
    indices = np.zeros(513, int)
    indices[512] = 1
    layer = Layer.ssvq(
        "a", shape=(1, 1026), scale=ONE, codebook=np.array([[1, 2], [3, 4]], np.int8),
        indices=indices, signs=negative,
    )  # fmt: skip
    full = bytes(64) + bytes(127) + b"\x80"
    assert layer.stream.tobytes() == full + granules(b"\x01", b"\x01")


# ---- the committed file --------------------------------------------------------------------------


def test_writer_reproduces_the_golden_file(tmp_path):
    path = tmp_path / "golden.vq.safetensors"
    make.write(path)
    assert path.read_bytes() == make.FILE.read_bytes()


def test_reader_decodes_the_golden_file():
    with open_container(make.FILE, rom=make.rom()) as file, np.load(make.WEIGHTS) as want:
        file.verify()
        assert [e.geometry.name for e in file.layers] == want.files
        for name in want.files:
            assert file.weight(name).tobytes() == want[name].tobytes()
        for name, kept in make.kept().items():
            assert file.kept(name) == kept


def test_second_reader_decodes_the_golden_file():
    rom = {name: book.tobytes() for name, book in make.rom().items()}
    naive = NaiveFile(make.FILE.read_bytes(), rom)
    with np.load(make.WEIGHTS) as want:
        assert list(naive.weights) == want.files
        for name in want.files:
            assert naive.weights[name] == want[name].tobytes()
    for name, kept in make.kept().items():
        assert naive.kept[name] == (kept.dtype, kept.shape, kept.data)


@pytest.mark.parametrize(
    ("golden", "write", "made"),
    [
        (make.REMAINING, make.write_remaining, make.remaining),
        (make.TIMED, make.write_timed, make.timed),
    ],
    ids=["parts", "time steps"],
)
def test_files_of_parts_that_remain_are_written_and_read_as_ever(golden, write, made, tmp_path):
    path = tmp_path / "golden.vq.safetensors"
    write(path)
    assert path.read_bytes() == golden.read_bytes()
    parts, kept = made()
    naive = NaiveFile(golden.read_bytes())
    with open_container(golden) as file:
        file.verify()
        assert file.layout == "vqstream/2" and list(file.runtime) == parts
        assert {name: file.kept(name) for name in file.kept_names} == kept
        for layer in make.linears():
            name = layer.geometry.name
            assert file.weight(name).tobytes() == naive.weights[name]
