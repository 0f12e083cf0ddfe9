"""Instances with their codebook in ROM: they use it from the first layer on, and load no other."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import vq
from hwsim import simulate
from hwsim.program.weights import layers_of
from hwsim.simulator.accelerator import Surroundings, run_program
from hwsim.simulator.traffic import Traffic
from rtl import (
    DESCRIPTOR,
    AcceleratorConfig,
    CodebookMode,
    StreamerConfig,
    rom_text,
    write_verilog,
)
from rtl.program import RunStatus
from rtl.rom import parse_rom
from tests.hwsim.containers import Maker, write
from tests.hwsim.programs import SMALL, Layers, Tokens, network, run_network
from tests.rtl.fixed import codebook, fixed, named
from tests.rtl.golden import Network, check, check_counters, same_beats
from vq import SSVQ, Int8, Recipe
from vq.container import ConfigError, Layer, open_container

TILE = {"tile_outputs": SMALL.rows}
FIXED = fixed(SMALL, (16, 8))
STREAMER = fixed(StreamerConfig(bus_bits=64, tile_outputs=8), (8, 4))


def every_format(seed: int = 0) -> list[Layer]:
    """Codebook layers of every method around layers that have none."""
    make, rom = Maker(seed), {**TILE, **named(FIXED)}
    integers = make.rng.integers(-128, 128, (13, 29)).astype(np.int8)
    return [
        make.ssvq("ssvq", (48, 40), 8, 16, **rom),
        Layer.int8("int8", integers=integers, scale=make.scale(13), **TILE),
        make.vq("vq", (36, 36), 8, 16, **rom),
        make.codes("int3 zeros", (24, 64), 3, 32, zeros=True, **TILE),
        make.ssvq("parity", (24, 64), 8, 16, parity=True, **rom),
        make.codes("int4", (24, 64), 4, 16, zeros=False, **TILE),
        make.ssvq("outputs", (48, 40), 8, 16, axis="out", **rom),
        make.codes("int2 zeros", (16, 32), 2, 8, zeros=True, **TILE),
        make.vq("chunks", (80, 60), 8, 16, **rom),
    ]


@pytest.mark.rtl
@pytest.mark.parametrize("rows", [1, 5, 100])
def test_formats_back_to_back(tmp_path: Path, rows: int) -> None:
    """Zeros of groups pass beside the ROM, and nothing else is read with the codebooks."""
    layers = Layers(tmp_path, every_format(rows), rows, FIXED)
    weights = [layer.weights for layer in layers.program.layers]
    zeros = sum(-(-layer.zero_bytes // 64) for layer in weights)
    assert not any(layer.codebook_bytes for layer in weights) and zeros > 0
    for traffic in (Traffic(), Traffic(seed=rows, ar_idle=0.5, r_idle=0.4)):
        for outcome in layers.run(Surroundings(traffic=traffic, runs=2)):
            layers.require_exact(outcome)
            assert outcome.registers["READ_CODEBOOKS"] == zeros * 64 // FIXED.bus_bytes


@pytest.mark.rtl
def test_a_run_of_a_file(tmp_path: Path) -> None:
    """The configuration alone says what is in ROM, to the hardware and to numpy."""
    path = write(tmp_path / "x.vq.safetensors", every_format())
    document = simulate(path, config=FIXED)
    assert all(run["bit_exact"] for run in document["runs"].values())
    assert document["runs"]["compressed"]["bytes_by"]["codebooks"] == 0
    assert AcceleratorConfig.from_mapping(document["accelerator"]) == FIXED


@pytest.mark.rtl
def test_a_recipe_that_names_the_codebook(tmp_path: Path) -> None:
    """Compressed for the instance: the file holds no codebook, and runs bit for bit."""
    np.save(tmp_path / "book.npy", codebook((16, 8)))
    rules = """
    "0": {method: ssvq, codebook: "rom:book.npy", tile_outputs: 8}
    "1": {method: vq, codebook: "rom:book.npy", scale: output, tile_outputs: 8}
    "2": {method: ssvq, codebook: "rom:book.npy", parity: true, axis: out, tile_outputs: 8}
    """
    (tmp_path / "recipe.yaml").write_text(rules)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 48), nn.Linear(48, 36), nn.Linear(36, 24))
    vq.compress_(model, Recipe.from_yaml(tmp_path / "recipe.yaml"), progress=False)
    path = tmp_path / "x.vq.safetensors"
    vq.save(model, path)
    document = simulate(path, config=FIXED)
    assert all(run["bit_exact"] for run in document["runs"].values())
    assert document["runs"]["compressed"]["bytes_by"]["codebooks"] == 0


@pytest.mark.rtl
def test_network(tmp_path: Path) -> None:
    """A network whose recipe named the codebook, signs beside int8."""
    np.save(tmp_path / "book.npy", codebook((16, 8)))
    coded = SSVQ(codebook=f"rom:{tmp_path / 'book.npy'}", tile_outputs=8)
    recipe = Recipe({"*": coded, "gate": Int8(tile_outputs=8)})
    path = network(tmp_path, Tokens(), (9, 32), recipe, FIXED.streamer.roms)
    program, _ = run_network(path, FIXED)
    weights = [layer.weights for layer in program.layers if layer.weights]
    assert [layer.codebook_bytes for layer in weights] == [0, 0, 0]


@pytest.mark.rtl
def test_codebook_to_load(tmp_path: Path) -> None:
    """Refused with a status, whether made for an instance with RAM or changed on the way."""
    make = Maker(3)
    own = [make.ssvq(name, (16, 32), 8, 16, **TILE) for name in "ab"]
    for_ram = Layers(tmp_path, own, 1, SMALL)
    (outcome,) = run_program(FIXED, for_ram.program, for_ram.image())
    assert (outcome.status, outcome.failed_layer) == (RunStatus.CODEBOOK, 0)

    layers = Layers(tmp_path, every_format(), 1, FIXED)
    load = {"weights__codebook_mode": CodebookMode.LOAD.value, "weights__codebook_granules": 2}
    image = layers.corrupted(2, **load)
    (outcome,) = run_program(FIXED, layers.program, image)
    assert (outcome.status, outcome.failed_layer) == (RunStatus.CODEBOOK, 2)
    assert outcome.registers["LAYERS_DONE"] == 2


@pytest.mark.rtl
@pytest.mark.parametrize("traffic", [Traffic(), Traffic(seed=2, r_idle=0.4, weights_idle=0.5)])
def test_streamer(tmp_path: Path, traffic: Traffic) -> None:
    book, network = codebook((8, 4)), Network(traffic.seed)
    for vectors in (1, 127, 512, 513, 1500):
        network.add(vectors, 4, 3, book=book)
        network.add_zeros(2, 32, 16, 3, STREAMER)
        network.add(vectors, 4, 3, book=book, parity=True)
        network.add_int8(vectors)
        network.add(vectors, 4, 3, book=book, signed=False)
        network.add_codes(vectors, 2)
    check(network, network.run(STREAMER, tmp_path, traffic=traffic))


@pytest.mark.rtl
def test_streamer_refuses_other_codebooks(tmp_path: Path) -> None:
    """To load, of another d, of another b, or none; all other layers run."""
    book, network = codebook((8, 4)), Network(1)
    network.add(600, 4, 3, book=book)
    network.add(600, 4, 3)
    network.add(600, 4, 3, book=book)
    network.add(600, 8, 3, book=codebook((8, 8)))
    network.add(600, 4, 2, book=codebook((4, 4)))
    network.add(600, 4, 3, book=book, codebook_mode=CodebookMode.NONE)
    network.add(600, 4, 3, book=book, signed=False)
    result = network.run(STREAMER, tmp_path)
    refused = "CODEBOOK"
    want = ["OK", refused, "OK", refused, refused, refused, "OK"]
    assert [layer.report["status"] for layer in result.layers] == want
    for layer, expected in zip(result.layers, network.expected, strict=True):
        ran = layer.report["status"] == "OK"
        assert same_beats(layer.weights, expected if ran else expected[:0], STREAMER.bus_bits)
    check_counters(result)


def test_descriptors(tmp_path: Path) -> None:
    path = write(tmp_path / "x.vq.safetensors", every_format())
    with open_container(path) as container:
        layers = layers_of(container, FIXED.streamer)
    for layer in layers:
        descriptor = DESCRIPTOR.from_bits(layer.descriptor)
        assert (descriptor.codebook_mode == CodebookMode.KEEP) == bool(layer.entry.geometry.k)
        assert layer.codebook_bytes == 0 and layer.padding_bytes >= 0


def test_layers_that_do_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named with the limit, before anything is simulated or decoded."""
    monkeypatch.setattr("hwsim.measure.simulate.run_program", None)
    make = Maker()
    ((ours, book),) = FIXED.streamer.roms.items()
    other = fixed(SMALL, (32, 8))
    cut = replace(SMALL, codebook_rom=rom_text(book.reshape(32, 4)))
    ((theirs, _),) = other.streamer.roms.items()
    rom = make.ssvq("rom", (16, 32), 8, 16, **TILE, **named(FIXED))
    own = make.vq("own", (16, 32), 8, 16, **TILE)
    for layer, config, problem in (
        (own, FIXED, f"layer 'own': codebook must be {ours} (codebook_rom), not own.codebook"),
        (rom, other, f"layer 'rom': codebook must be {theirs} (codebook_rom), not {ours}"),
        (rom, cut, "layer 'rom': codebook must be [32, 4] (codebook_rom), not [16, 8]"),
        (rom, SMALL, "layer 'rom': codebook must be in the file, not in ROM"),
    ):
        path = write(tmp_path / "x.vq.safetensors", [layer])
        with pytest.raises(ConfigError) as caught:
            simulate(path, config=config)
        assert str(caught.value) == f"accelerator has 1 problem:\n- {problem}"


TEXT = rom_text(codebook((16, 8)))


@pytest.mark.parametrize("kind", [AcceleratorConfig, StreamerConfig])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"codebook_rom": 16}, r"- codebook_rom must be text, not 16$"),
        ({"codebook_rom": "16x8"}, r"- codebook_rom must be KxD: and k \* d bytes .*, not '16x8'$"),
        ({"codebook_rom": TEXT + "00"}, r"- codebook_rom must be KxD: .*, not '16x8:.{11}\.\.\.'$"),
        ({"codebook_rom": TEXT.upper()}, r"- codebook_rom must be KxD: "),
        (
            {"codebook_rom": rom_text(codebook((12, 8)))},
            r"- codebook_rom must have a power of two from 2 to 256 \(2\*\*index_bits_max\) as k, "
            r"not 12$",
        ),
        ({"codebook_rom": rom_text(codebook((1, 8)))}, r"as k, not 1$"),
        ({"codebook_rom": rom_text(codebook((64, 8))), "index_bits_max": 5}, r"as k, not 64$"),
        (
            {"codebook_rom": TEXT, "d_max": 4},
            r"- codebook_rom must have a power of two from 4 to 4 \(d_min to d_max\) as d, not 8$",
        ),
        ({"codebook_rom": rom_text(codebook((16, 6)))}, r"as d, not 6$"),
        (
            {"codebook_rom": TEXT, "int8_only": 1},
            r"- codebook_rom must be empty beside int8_only = 1, not a codebook$",
        ),
        # A limit that is impossible itself says nothing about the codebook.
        ({"codebook_rom": TEXT, "index_bits_max": 99}, r"has 1 problem:\n- index_bits_max"),
    ],
)
def test_impossible(kind: type, settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**settings)


def test_all_problems_in_one_error() -> None:
    with pytest.raises(ConfigError, match=r"has 4 problems:\n- bus_bits (.*\n- codebook_rom ){3}"):
        AcceleratorConfig(bus_bits=1, int8_only=1, codebook_rom=rom_text(codebook((12, 6))))


@pytest.mark.parametrize("config", [FIXED, STREAMER], ids=["accelerator", "streamer"])
def test_manifest(config: AcceleratorConfig | StreamerConfig, tmp_path: Path) -> None:
    path = write_verilog(config, tmp_path / "instance.v")
    settings = json.loads(path.with_suffix(".json").read_text())["config"]
    assert settings["codebook_rom"] == config.codebook_rom
    assert type(config).from_mapping(settings) == config
    if config is FIXED:
        first = codebook((16, 8))[0].tobytes()[::-1].hex()
        assert f"memory[0] = 64'h{first};" in path.read_text()


def test_text_and_back() -> None:
    book = np.asfortranarray(np.random.default_rng(0).integers(-128, 128, (8, 4)).astype(np.int8))
    assert np.array_equal(parse_rom(rom_text(book)), book)
    for wrong in (book[0], book.astype(np.int16), book[:0]):
        with pytest.raises(ConfigError, match=r"^codebook must be \[k, d\] int8, not "):
            rom_text(wrong)
