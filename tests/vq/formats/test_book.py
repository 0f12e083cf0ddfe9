"""Fixed codebooks, from a recipe to a file and back: never trained, stored once or only named."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import vq
from tests.vq.models import Net, batches
from vq import SSVQ, VQ, Recipe
from vq.container import open_container
from vq.container.rom import rom_name
from vq.errors import ConfigError, RecipeError
from vq.formats.book import Book
from vq.formats.model import compressed_layers

BOOK = np.random.default_rng(0).integers(0, 128, (16, 4)).astype(np.int8)
NAME = rom_name(BOOK)
STORED = NAME.replace("rom:", "sha256:")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    np.save(tmp_path / "book.npy", BOOK)
    return tmp_path


def test_names_say_what_is_inside(folder):
    stored, rom = Book.named("book.npy", folder), Book.named("rom:book.npy", folder)
    assert (stored.name, stored.tensor, stored.shape) == (STORED, f"codebook:{STORED}", (16, 4))
    assert (rom.name, rom.tensor) == (NAME, NAME)
    assert stored.integers is not None and np.array_equal(stored.integers, BOOK)
    only_named = Book.named(NAME, folder)
    assert only_named == rom and only_named.integers is None and only_named.shape is None
    assert stored != rom
    assert Book.of(BOOK) == stored and Book.of(BOOK, rom=True) == rom


def test_files_that_hold_no_codebook(folder):
    with pytest.raises(ConfigError, match=r"none\.npy: must be an array file of numpy, but"):
        SSVQ(codebook=str(folder / "none.npy"))
    np.save(folder / "wide.npy", BOOK.astype(np.int16))
    with pytest.raises(ConfigError, match=r"wide\.npy: codebook must be \[k, d\] int8, not"):
        Book.named("rom:wide.npy", folder)


RULES = """
fc1: {{method: ssvq, codebook: "{0}", scale: output}}
fc2: {{method: vq, codebook: "{0}", axis: out}}
head: {{method: ssvq, codebook: "{0}", parity: true}}
"""


@pytest.mark.parametrize("kind", ["", "rom:"])
def test_from_recipe_to_file(folder: Path, kind: str) -> None:
    (folder / "r.yaml").write_text(RULES.format(f"{kind}book.npy"))
    recipe, path = Recipe.from_yaml(folder / "r.yaml"), folder / "x.vq.safetensors"
    torch.manual_seed(0)
    model = Net()
    planned = vq.plan(model, Recipe.from_json(recipe.to_json()))  # without the file at hand
    result = vq.compress_(model, recipe, progress=False)
    errors = {layer.geometry.name: layer.relative_error for layer in result.layers}
    assert errors["fc1"] < errors["head"] < 0.3  # parity costs
    assert errors["fc2"] < 0.9  # magnitudes are a poor codebook for signed weights
    layers = {layer.name: layer for layer in compressed_layers(model)}
    assert [layer.codebook for layer in layers.values()] == [None] * 3
    assert layers["fc2"].originals == ()
    latent = layers["fc1"].latent.detach().clone()
    scales = {name: layer.lookup.scale(None).clone() for name, layer in layers.items()}
    vq.finetune_(model, batches(2), epochs=2, progress=False)
    assert not torch.equal(layers["fc1"].latent, latent)
    for name, layer in layers.items():
        assert torch.equal(layer.lookup.integers(None), torch.from_numpy(BOOK).float())
        assert torch.equal(layer.lookup.scale(None), scales[name])
    assert vq.save(model, path).file_bytes == planned.file_bytes == path.stat().st_size
    rom = {NAME: BOOK} if kind else None
    with open_container(path, rom=rom) as file:
        books = [name for name in file.tensor_spans() if "codebook" in name]
        assert books == ([] if kind else [f"codebook:{STORED}"])
        for name in layers:
            assert np.array_equal(file.codebook(name), BOOK)
    same = vq.load(path, into=Net(), rom=rom)
    for name, layer in layers.items():
        assert torch.equal(same.get_submodule(name).weight, layer.module.weight)


def test_a_codebook_that_is_only_named_cannot_compress():
    model = Net()
    recipe = Recipe({"fc1": VQ(d=4, k=16, codebook=STORED)})
    assert vq.plan(model, recipe).layers[0].geometry.codebook == f"codebook:{STORED}"
    with pytest.raises(ConfigError, match=rf"^codebook {STORED} must be given by its file to"):
        vq.compress_(model, recipe)
    assert not list(compressed_layers(model))


def test_a_norm_may_take_the_scale(folder):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 24), nn.BatchNorm1d(24)).eval()
    x = torch.randn(64, 32)
    twin = nn.Sequential(nn.Linear(32, 24), nn.BatchNorm1d(24)).eval()
    twin.load_state_dict(model.state_dict())
    book = str(folder / "book.npy")
    vq.compress_(model, Recipe({"0": SSVQ(codebook=book, scale="norm")}))
    vq.compress_(twin, Recipe({"0": SSVQ(codebook=book, scale="output")}))
    assert model[0].weight.abs().max() <= 127
    torch.testing.assert_close(model(x), twin(x), rtol=1e-4, atol=1e-4)


def test_refinement_may_choose_its_codewords_again(folder):
    torch.manual_seed(0)
    model = Net()
    book = str(folder / "book.npy")
    vq.compress_(model, Recipe({"fc1": SSVQ(codebook=book), "fc2": VQ(codebook=book)}))
    layers = list(compressed_layers(model))
    before = [layer.lookup.indices.clone() for layer in layers]
    rule = vq.Refinement(interval_steps=1, margin=0.0, until=1.0)
    vq.finetune_(model, batches(4), epochs=4, refinement=rule, progress=False)
    changed = [
        not torch.equal(x.lookup.indices, old) for x, old in zip(layers, before, strict=True)
    ]
    assert changed == [True, False]  # nothing of the second is trained, so nothing pulls at it


def test_a_model_that_nothing_can_be_trained_in(folder):
    model = nn.Sequential(nn.Linear(16, 16, bias=False))
    vq.compress_(model, Recipe({"0": VQ(codebook=str(folder / "book.npy"))}))
    with pytest.raises(ConfigError, match=r"^model must hold something to train, not nothing; "):
        vq.finetune_(model, [(torch.ones(2, 16), torch.zeros(2).long())], epochs=1, progress=False)


def test_broken_settings_are_all_reported(folder):
    np.save(folder / "signed.npy", -BOOK)
    np.save(folder / "low.npy", np.full((4, 2), -128, np.int8))
    np.save(folder / "zero.npy", np.zeros((4, 2), np.int8))
    with pytest.raises(RecipeError) as error:
        Recipe.from_json(
            {
                "a": {"method": "ssvq", "codebook": "signed.npy"},
                "b": {"method": "vq", "codebook": "low.npy"},
                "c": {"method": "vq", "codebook": "zero.npy", "d": 4},
                "d": {"method": "ssvq", "codebook": "book.npy", "shared": "all"},
                "e": {"method": "ssvq", "codebook": NAME},
            },
            folder,
        )
    assert str(error.value).splitlines()[1:] == [
        "- key 'a': codebook must hold 0 to 127, not -127 to 0",
        "- key 'b': codebook must hold -127 to 127, not -128 to -128",
        "- key 'c': codebook must hold more than zeros",
        "- key 'c': d must be its codebook's 2, not 4",
        "- key 'd': shared must be absent beside a fixed codebook, not 'all'",
        f"- key 'e': d and k must be given with a codebook that is only named, {NAME}",
    ]
    with pytest.raises(RecipeError) as error:
        Recipe.from_json(
            {"a": {"method": "vq", "codebook": 5}, "b": {"method": "vq", "codebook": "no.npy"}},
            folder,
        )
    first, second = str(error.value).splitlines()[1:]
    assert first == "- key 'a': codebook must be PATH or rom:PATH of an array, not 5"
    assert second.startswith(f"- key 'b': {folder / 'no.npy'}: must be an array file of numpy, but")
    with pytest.raises(RecipeError, match="int4 has no setting 'codebook'"):
        Recipe.from_json({"a": {"method": "int4", "codebook": "book.npy"}})
