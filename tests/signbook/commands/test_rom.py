"""Files whose codebook is in ROM: commands that need it take it by ``--rom``."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import vq
from tests.signbook.commands.test_integer import DATA, SMALL
from tests.signbook.runner import refused, run
from tests.vq.integer.models import Small
from vq.container.rom import roms_of


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A container of the small network, and the array file of the codebook that it names."""
    folder = tmp_path_factory.mktemp("rom")
    book, path = folder / "book.npy", folder / "fixed.vq.safetensors"
    np.save(book, np.random.default_rng(0).integers(0, 128, (16, 4)).astype(np.int8))
    torch.manual_seed(0)
    model = Small()
    fixed = vq.SSVQ(codebook=f"rom:{book}", axis="kernel")
    vq.compress_(model, vq.Recipe({"down": fixed, "*": vq.Int8()}))
    vq.save(model, path)
    return path, book


def test_inspect_needs_no_codebook(files, tmp_path):
    out = tmp_path / "inspect.json"
    done = run("inspect", files[0], "--json", out)
    assert done.returncode == 0, done.stderr
    layers = {layer["name"]: layer for layer in json.loads(out.read_text())["layers"]}
    assert (layers["down"]["k"], layers["down"]["codebook_bytes"]) == (16, 0)


def test_others_take_it(files, tmp_path):
    file, book = files
    rom, out = ("--rom", book), tmp_path / "out.json"
    dense = vq.load(file, into=Small(), rom=roms_of(book))
    weights = tmp_path / "dense.safetensors"
    done = run("export", file, "--to", "dense", "--out", weights, *rom)
    assert done.returncode == 0, done.stderr
    assert torch.equal(load_file(weights)["down.weight"], dense.down.weight)
    graph = tmp_path / "graph.vq.safetensors"
    done = run("integer", SMALL, "--file", file, "--data", DATA, "--out", graph, *rom)
    assert done.returncode == 0, done.stderr
    given = ("eval", SMALL, "--data", DATA, "--file", graph, "--json", out)
    scores = []
    for kind in ((), ("--integer",)):
        done = run(*given, *kind, *rom)
        assert done.returncode == 0, done.stderr
        scores.append(json.loads(out.read_text())["metrics"]["top1"])
    assert scores[0] == pytest.approx(scores[1], abs=0.2)


def test_a_memory_image_needs_none(files, tmp_path):
    out = tmp_path / "image.bin"
    done = run("export", files[0], "--to", "dram", "--out", out)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == files[0].read_bytes()


def test_mistakes_are_one_line(files, tmp_path):
    file, book = files
    other = tmp_path / "other.npy"
    np.save(other, np.ones((16, 4), np.int8))
    commands = (
        ("export", file, "--to", "dense", "--out", tmp_path / "x"),
        ("integer", SMALL, "--file", file, "--data", DATA),
        ("eval", SMALL, "--file", file, "--data", DATA),
    )
    for command in commands:
        for given in ((), ("--rom", other)):
            text = refused(*command, *given)
            assert "layer 'down': codebook rom:" in text and "its array file (--rom)" in text
        assert "none.npy: must be an array" in refused(*command, "--rom", tmp_path / "none.npy")
    assert "--rom must come with --file" in refused("eval", SMALL, "--data", DATA, "--rom", book)
    assert not (tmp_path / "x").exists()
