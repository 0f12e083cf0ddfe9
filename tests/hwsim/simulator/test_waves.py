"""Waveforms: what they show, and that a file is there as a whole or not at all."""

import ctypes
import os
import resource
import subprocess
import zlib
from contextlib import contextmanager
from pathlib import Path

import pytest

from hwsim.simulator.waves import LIBRARIES, readable, waves_at
from tests.hwsim.containers import Maker
from tests.hwsim.programs import SMALL, Layers
from vq.container import OutputError
from vq.native import command_of

BLOCK = b"\x01" + (8 + 5).to_bytes(8, "big") + b"12345"
WHOLE = b"\x00" + (8 + 3).to_bytes(8, "big") + b"abc" + BLOCK


def test_whole_waves_take_the_name(tmp_path: Path) -> None:
    target = tmp_path / "run.fst"
    with waves_at(target) as made:
        made.path.write_bytes(WHOLE)
        assert made.whole
        made.keep()
    assert target.read_bytes() == WHOLE and os.listdir(tmp_path) == ["run.fst"]


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        bytes(len(WHOLE)),  # the header is written last
        bytes(12) + BLOCK,
        WHOLE[:-1],
        WHOLE + b"\x01",
        BLOCK,
    ],
)
def test_other_waves_are_refused_and_the_old_ones_stay(tmp_path: Path, content) -> None:
    target = tmp_path / "run.fst"
    target.write_bytes(b"old")
    with waves_at(target) as made:
        if content is not None:
            made.path.write_bytes(content)
        with pytest.raises(OutputError, match="waves must find room for all of them"):
            made.keep()
    assert target.read_bytes() == b"old" and os.listdir(tmp_path) == ["run.fst"]


def test_places_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="waves must lie where files can be written"):
        with waves_at(tmp_path / "absent" / "run.fst"):
            pass
    (tmp_path / "run.fst").mkdir()
    with waves_at(tmp_path / "run.fst") as made:
        made.path.write_bytes(WHOLE)
        with pytest.raises(OutputError, match="choose another file"):
            made.keep()


def test_names_of_expressions_are_hidden_and_others_stay() -> None:
    text = "wire \\$12 ;\nassign \\layer$3  = \\$12  & \\port$5511$0 ;\nif (\\weights[0][1] )"
    want = "wire __12 ;\nassign \\layer$3  = __12  & _port_5511_0 ;\nif (\\weights[0][1] )"
    assert readable(text) == want


def lz4_decoded(block: bytes) -> bytes:
    out, at = bytearray(), 0

    def length(nibble: int) -> int:
        nonlocal at
        more = nibble == 15
        while more:
            nibble += block[at]
            more = block[at] == 255
            at += 1
        return nibble

    while True:
        token, at = block[at], at + 1
        literals = length(token >> 4)
        out += block[at : at + literals]
        at += literals
        if at == len(block):
            return bytes(out)
        distance, at = int.from_bytes(block[at : at + 2], "little"), at + 2
        for _ in range(length(token & 15) + 4):
            out.append(out[-distance])


def test_what_stands_for_libraries_packs_what_they_unpack(tmp_path: Path) -> None:
    for name, text in LIBRARIES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "pack.cpp").write_text("""#include <lz4.h>
#include <zlib.h>
extern "C" int lz4(const char *from, char *to, int size)
{ return LZ4_compress_default(from, to, size, LZ4_compressBound(size)); }
extern "C" unsigned long zip(unsigned char *to, const unsigned char *from, unsigned long size)
{
    uLongf room = compressBound(size);
    return compress2(to, &room, from, size, 9) == Z_OK ? room : 0;
}
""")
    compiler = command_of("CXX", "g++")
    subprocess.run(
        [*compiler, "-I.", "-L.", "-Wall", "-Werror", "-shared", "-fPIC", "-o", "pack.so",
         "pack.cpp", "-llz4", "-lz"],
        cwd=tmp_path, check=True,
    )  # fmt: skip
    library = ctypes.CDLL(str(tmp_path / "pack.so"))
    library.zip.restype = ctypes.c_ulong
    random = Maker(0).rng
    for size in (0, 1, 5, 12, 13, 17, 300, 70_000):
        for values in (1, 2, 256):
            data = random.integers(0, values, size, "uint8").tobytes()
            room = ctypes.create_string_buffer(size + size // 255 + 64)
            packed = library.lz4(data, room, size)
            assert lz4_decoded(room.raw[:packed]) == data
            assert values > 1 or size < 300 or packed < size // 20
            packed = library.zip(room, data, ctypes.c_ulong(size))
            assert zlib.decompress(room.raw[:packed]) == data


@contextmanager
def file_size_limit(nbytes: int):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.rtl
@pytest.mark.slow  # a build of its own
def test_waves_show_the_run(tmp_path: Path) -> None:
    """Every signal by the name it has in the sources, and what the registers counted."""
    pywellen = pytest.importorskip("pywellen", reason="pywellen is not installed")
    layers = Layers(tmp_path, [Maker(0).ssvq("ssvq", (16, 32), 4, 16, tile_outputs=SMALL.rows)], 2)
    target = tmp_path / "run.fst"
    (outcome,) = layers.run(waves=target)
    layers.require_exact(outcome)
    opened = pywellen.Waveform(str(target))
    found = {each.full_name: each for each in opened.all_vars()}
    top = "signbook_playback.device."
    names = {name.removeprefix(top) for name in found if name.startswith(top)}
    shown = "clk m_axi_araddr run.busy engine.activations engine.walk.pieces__valid"
    assert names >= set(shown.split()) and found[top + "m_axi_rdata"].bitwidth == SMALL.bus_bits
    assert not [name for name in names if name.split(".")[-1].startswith(("$", "_"))]
    assert not [name for name in found if name.startswith("$")]
    clock, busy = (found[top + name].signal for name in ("clk", "run.busy"))
    end = 2 * (outcome.registers["CYCLES"] + 1000)
    edges = [t for t in range(1, end) if clock.value_at(t) == 1 and clock.value_at(t - 1) == 0]
    assert sum(busy.value_at(t - 1) for t in edges) == outcome.registers["CYCLES"]

    target.unlink()
    with (
        file_size_limit(100_000),
        pytest.raises(OutputError, match=r"run\.fst: waves must find room"),
    ):
        layers.run(waves=target)
    assert not target.exists()
