"""``signbook codebook build``: from models to an array file that compresses them."""

import hashlib
import json

import numpy as np
import pytest
import torch
from torch import nn

import vq
from signbook.naming import resolve_model
from tests.signbook.runner import refused, run
from vq.container.rom import rom_name, roms_of

MODULE = """
import torch
from torch import nn

def dense(width=64):
    return nn.Sequential(nn.Linear(16, width), nn.ReLU(), nn.Linear(width, 8))

def convolutions():
    return nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Linear(3, 3))

def nan():
    model = dense()
    model[2].weight.data[0] = float("nan")
    return model
"""
DENSE, CONVOLUTIONS = "py:hard_books:dense", "py:hard_books:convolutions"


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    (tmp_path / "hard_books.py").write_text(MODULE)
    (tmp_path / "r.yaml").write_text("'re:0|2': {method: ssvq, d: 8, k: 32, scale: output}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def built(*words, models=(DENSE, CONVOLUTIONS)):
    done = run("codebook", "build", *models, "--out", "book.npy", "--json", "b.json", *words)
    assert done.returncode == 0, done.stderr
    with open("b.json") as file:
        return np.load("book.npy"), json.load(file), done.stdout


def test_a_book_of_two_models_compresses_both(place):
    book, document, shown = built("--k", "16", "--seed", "3")
    assert book.shape == (16, 4) and book.dtype == np.int8
    assert document["schema"] == "signbook.codebook/1"
    assert (document["format"], document["d"], document["k"], document["bytes"]) == (
        "vq",
        4,
        16,
        64,
    )
    assert document["sha256"] == hashlib.sha256(book.tobytes()).hexdigest()
    assert rom_name(book) == f"rom:{document['sha256']}" and document["sha256"] in shown
    assert (document["by"], document["samples"], document["seed"]) == ("kde", 3000, 3)
    assert [n["name"] for n in document["networks"]] == [DENSE, CONVOLUTIONS]
    assert [(n["layers"], n["left_out"]) for n in document["networks"]] == [(2, 0), (2, 1)]
    assert [n["sub_vectors"] for n in document["networks"]] == [384, 612]
    assert [n["drawn"] for n in document["networks"]] == [3000, 3000]
    assert document["left_out"] == [{"network": CONVOLUTIONS, "name": "3"}]
    assert [x["drawn"] for x in document["layers"] if x["network"] == DENSE] == [2000, 1000]
    for network in document["networks"]:
        own, shared = network["bits_per_weight"], network["bits_per_weight_shared"]
        assert own < shared < network["bits_per_weight_alone"]
        assert shared == pytest.approx(own + 8 * 64 / (1536 + 2448))
    for name in (DENSE, CONVOLUTIONS):
        model = resolve_model(name)
        rule = vq.VQ(codebook="rom:book.npy")
        vq.compress_(model, vq.Recipe({"0": rule, "2": rule}), progress=False)
        vq.save(model, "m.vq.safetensors")
        same = vq.load("m.vq.safetensors", into=resolve_model(name), rom=roms_of("book.npy"))
        assert torch.equal(same[2].weight, model[2].weight)


def test_it_is_what_the_library_makes(place):
    book, document, _ = built("--recipe", "r.yaml", "--samples", "100", "--bandwidth", "0.4")
    networks = {}
    for name in (DENSE, CONVOLUTIONS):
        torch.manual_seed(0)
        networks[name] = resolve_model(name)
    recipe = vq.Recipe.from_yaml("r.yaml")
    found = vq.universal_codebook(networks, recipe, samples=100, bandwidth=0.4)
    assert np.array_equal(found.integers, book) and book.min() >= 0
    assert (document["format"], document["d"], document["k"]) == ("ssvq", 8, 32)
    again, _, _ = built("--recipe", "r.yaml", "--recipe", "r.yaml", "--samples", "100")
    assert not np.array_equal(again, book)  # Scott's bandwidth
    for by in ("kmeans", "subsample"):
        other, document, _ = built("--format", "ssvq", "--d", "8", "--k", "32", "--by", by)
        assert other.shape == (32, 8) and other.min() >= 0 and document["bandwidth"] is None


def test_weights_are_given_for_each_model(place):
    for name in ("a", "b"):
        torch.save(nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 8)).state_dict(), name)
    weights = ("--weights", "a", "--weights", "b")
    book, _, _ = built(*weights, models=(DENSE, DENSE))
    swapped, _, _ = built(*weights[2:], *weights[:2], models=(DENSE, DENSE))
    assert not np.array_equal(book, swapped)
    text = refused("codebook", "build", DENSE, DENSE, "--out", "x.npy", "--weights", "a")
    assert "--weights must be given for each of 2 models, or for none, not 1 times" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", "int8"], "--format must be vq or ssvq, not 'int8'"),
        (["--recipe", "r.yaml", "--d", "4"], "--recipe must stand without --format, --d and --k"),
        (3 * ["--recipe=r.yaml"], "--recipe must be given once, or for each of 2 models, not 3"),
        (["--k", "100", "--samples", "9"], "k must be at most the 18 sub-vectors that are drawn"),
        (["--by", "em"], "by must be kde, kmeans or subsample, not 'em'"),
        (["--d", "64"], f"network {CONVOLUTIONS!r}: must have a layer with whole sub-vectors"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(words, message, place):
    before = sorted(place.iterdir())
    done = refused("codebook", "build", DENSE, CONVOLUTIONS, "--out", "x.npy", *words)
    assert message in done
    assert [p for p in sorted(place.iterdir()) if p.name != "__pycache__"] == [
        p for p in before if p.name != "__pycache__"
    ]


def test_broken_weights_say_whose(place):
    text = refused("codebook", "build", DENSE, "py:hard_books:nan", "--out", "x.npy")
    assert "WeightError: network 'py:hard_books:nan' has 1 problem:" in text
    assert "layer '2': weights must be finite, but 64 are NaN or infinite" in text


def test_inputs_are_not_written_over(place):
    book, _, _ = built("--k", "8")
    (place / "own.yaml").write_text("'*': {method: vq, codebook: book.npy}\n")
    (place / "b.npy").symlink_to("book.npy")
    for out in ("r.yaml", "hard_books.py"):
        text = refused("codebook", "build", DENSE, "--recipe", "r.yaml", "--out", out)
        assert f"--out must not be a file that is read, not {out}" in text
    text = refused("codebook", "build", DENSE, "--recipe", "own.yaml", "--out", "b.npy")
    assert "--out must not be a file that is read, not b.npy: it is book.npy" in text
    assert np.array_equal(np.load("book.npy"), book)
