"""Files that take turns: books of every turn, what stays loaded, and numpy's numbers."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import vq
from hwsim import estimate_turns, simulate_turns
from signbook.zoo.dit import DiT
from tests.hwsim.containers import Maker, write
from tests.hwsim.measure.runs import require_run
from tests.hwsim.programs import SMALL, Net, Tokens, network
from tests.rtl.fixed import codebook, fixed, named
from vq import SSVQ, Recipe
from vq.container import ConfigError, SimulationError, open_container
from vq.formats.book import Book
from vq.formats.model import compressed_layers
from vq.integer import add_integer
from vq.methods.vq4all import vq4all_

MEMORY = "ideal:bytes_per_cycle=8,latency=20"
FIXED = fixed(SMALL, (16, 8))
BOOK = codebook((16, 8))


def two_networks(folder: Path, prefix: str) -> list[Path]:
    """Convolutions, and linears on rows, from one codebook."""
    np.save(folder / "book.npy", BOOK)
    recipe = Recipe({"*": SSVQ(codebook=f"{prefix}{folder / 'book.npy'}", tile_outputs=8)})
    paths = []
    for name, model, shape in (("net", Net(), (3, 13, 12)), ("tokens", Tokens(), (9, 32))):
        (folder / name).mkdir()
        paths.append(network(folder / name, model, shape, recipe, FIXED.streamer.roms))
    return paths


def codebooks(document: dict) -> list[int]:
    """Bytes of codebooks in every turn."""
    return [turn["run"]["bytes_by"]["codebooks"] for turn in document["turns"]]


def comparable(document: dict) -> dict:
    """All but what an engine says of itself."""
    turns = [
        {"file": t["file"]}
        | {k: v for k, v in t["run"].items() if k not in ("bit_exact", "wall_seconds")}
        for t in document["turns"]
    ]
    return document | {"engine": None, "turns": turns}


@pytest.mark.rtl
def test_networks_with_their_codebook_in_rom(tmp_path: Path) -> None:
    paths = two_networks(tmp_path, "rom:")
    settings = {"turns": [0, 1, 0], "config": FIXED, "memory": MEMORY}
    told: list[tuple[str, int, int]] = []
    document = simulate_turns(
        paths, **settings, check=True, progress=lambda *facts: told.append(facts)
    )
    read = sum(turn["run"]["bytes_read"] for turn in document["turns"])
    assert told[-1] == ("turns", read // FIXED.bus_bytes, read // FIXED.bus_bytes)
    assert document["files"] == [str(path) for path in paths]
    assert [turn["file"] for turn in document["turns"]] == [0, 1, 0]
    for turn in document["turns"]:
        require_run(turn["run"])
    assert codebooks(document) == [0, 0, 0]
    assert comparable(estimate_turns(paths, **settings)) == comparable(document)


@pytest.mark.rtl
@pytest.mark.parametrize(("keep", "loads"), [(True, [1, 0, 0]), (False, [1, 1, 1])])
def test_one_codebook_in_ram(tmp_path: Path, keep: bool, loads: list[int]) -> None:
    paths = two_networks(tmp_path, "")
    settings = {"turns": [0, 1, 0], "config": SMALL, "memory": MEMORY, "keep": keep}
    document = simulate_turns(paths, **settings, check=True)
    for turn in document["turns"]:
        require_run(turn["run"])
    assert codebooks(document) == [BOOK.size * load for load in loads]
    assert comparable(estimate_turns(paths, **settings)) == comparable(document)


@pytest.mark.rtl
def test_codebooks_of_their_own(tmp_path: Path) -> None:
    """The last one stays; and of the two that fit, one is not free in later turns."""
    make, tile = Maker(4), {"tile_outputs": SMALL.rows}
    small = write(tmp_path / "small.vq.safetensors", [make.vq("a", (8, 16), 4, 16, **tile)])
    large = [make.vq(name, (8, 16), 8, 256, **tile) for name in "bc"]
    paths = [small, write(tmp_path / "large.vq.safetensors", large)]
    settings = {"turns": [0, 0, 1, 1, 0], "config": SMALL, "memory": MEMORY}
    document = simulate_turns(paths, **settings, check=True)
    for turn in document["turns"]:
        require_run(turn["run"])
    assert codebooks(document) == [64, 0, 4096, 4096, 64]
    first = simulate_turns(paths[1:], config=SMALL, memory=MEMORY, check=True)["turns"][0]
    assert first["run"]["cycles"] < document["turns"][2]["run"]["cycles"]


@pytest.mark.rtl
def test_learnt_assignments_are_the_same_everywhere(tmp_path: Path) -> None:
    """VQ4ALL from a book in ROM: weights by torch, by numpy, and what the RTL makes of them."""
    kind = SSVQ(codebook=Book.of(BOOK, rom=True), tile_outputs=8)
    torch.manual_seed(0)
    teacher = Net().eval()
    model = copy.deepcopy(teacher)
    vq.compress_(model, Recipe({"*": kind}), progress=False)
    data = [(torch.randn(8, 3, 13, 12), torch.arange(8)) for _ in range(4)]
    result = vq4all_(model, data, teacher, n=3, epochs=2, progress=False)
    assert result.rules["candidates"][-1]["moved"] > 0
    path, roms = tmp_path / "network.vq.safetensors", FIXED.streamer.roms
    vq.save(model, path)
    loaded = vq.load(path, into=copy.deepcopy(teacher), rom=roms, progress=False)
    with open_container(path, rom=roms) as container:
        for layer in compressed_layers(model):
            weight = layer.module.weight.detach()
            assert torch.equal(loaded.get_submodule(layer.name).weight, weight)
            assert np.array_equal(container.weight(layer.name), weight.numpy())
    add_integer(path, teacher, [x for x, _ in data], rom=roms, progress=False)
    document = simulate_turns([path], config=FIXED, memory=MEMORY, check=True)
    require_run(document["turns"][0]["run"])
    assert codebooks(document) == [0]


@pytest.mark.rtl
def test_linears_of_a_diffusion_transformer(tmp_path: Path) -> None:
    """Without a graph, every linear has as many rows as there are tokens."""
    model = DiT(4, patch=2, width=16, depth=1)
    for weight in (module.weight for module in model.modules() if isinstance(module, nn.Linear)):
        nn.init.normal_(weight)
    kind = SSVQ(codebook=Book.of(BOOK, rom=True), tile_outputs=8)
    vq.compress_(model, Recipe({"blocks.*": kind}), progress=False)
    path = tmp_path / "dit.vq.safetensors"
    vq.save(model, path)
    document = simulate_turns([path], rows=4, config=FIXED, memory=MEMORY, check=True)
    run = document["turns"][0]["run"]
    require_run(run)
    assert codebooks(document) == [0] and {layer["m"] for layer in run["layers"]} == {4}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"turns": [0, 2]}, r"^turns must be places of 2 files, counted from 0, not 2$"),
        ({"turns": [-1]}, r"not -1$"),
        ({"turns": []}, r"^turns must be places of 2 files, counted from 0, not none$"),
        ({"rows": 0}, r"^rows must be at least 1, not 0$"),
        ({"memory": "hbm"}, r"^memory must be one of "),
        (
            {"config": fixed(SMALL, (8, 4))},
            r"a\.vq\.safetensors: accelerator has 1 problem:\n- layer 'a': codebook must be "
            r"rom:\w+ \(codebook_rom\), not rom:\w+$",
        ),
        ({"config": SMALL}, r"a\.vq\.safetensors: .*codebook must be in the file, not in ROM$"),
        ({}, r"b\.vq\.safetensors: .*'b': codebook must be rom:\w+ \(codebook_rom\), not b\.co"),
        (
            {"turns": 20 * [0], "config": replace(FIXED, address_bits=16)},
            r"a\.vq\.safetensors: accelerator: files and programs must end by 0x10000 "
            r"\(address_bits = 16\), not at 0x\w+$",
        ),
    ],
)
def test_refused_before_simulation(
    tmp_path: Path, arguments: dict, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hwsim.measure.turns.run_programs", None)
    make, tile = Maker(), {"tile_outputs": SMALL.rows}
    named_layer = make.ssvq("a", (16, 32), 8, 16, **tile, **named(FIXED))
    paths = [
        write(tmp_path / "a.vq.safetensors", [named_layer]),
        write(tmp_path / "b.vq.safetensors", [make.vq("b", (16, 32), 8, 16, **tile)]),
    ]
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        simulate_turns(paths, **{"config": FIXED, **arguments})


@pytest.mark.rtl
def test_failed_turn_names_file_and_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwsim.measure.turns.DEFAULT_TIMEOUT_CYCLES", 300)
    path = write(tmp_path / "a.vq.safetensors", [Maker().int8("a", (16, 32))])
    config, memory = SMALL, "ideal:bytes_per_cycle=8,latency=5000"
    message = r"a\.vq\.safetensors: layer 'a': status must be OK, not STALLED$"
    with pytest.raises(SimulationError, match=message):
        simulate_turns([path], turns=[0, 0], config=config, memory=memory)
