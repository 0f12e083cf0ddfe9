"""Bits and groups of all layers alike, or a recipe, or codebooks."""

from pathlib import Path

import pytest
from torch import nn

import vq
from signbook.commands.layout import Layout
from vq.errors import ConfigError
from vq.recipe.selection import select


def test_recipes_are_made_or_read(tmp_path):
    network = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64))

    def kinds(*given):
        return set(Layout(*given).recipe_for(network).rules.values())

    assert kinds(None, None, False, None, None) == {vq.Int4()}
    assert kinds(2, 32, True, None, None) == {vq.Int2(group=32, zeros=True)}
    assert kinds(3, None, False, None, "vq") == {vq.VQ(d=2, k=64, scale="output")}
    (tmp_path / "r.yaml").write_text('"0": {method: int8}\n')
    assert kinds(None, None, False, tmp_path / "r.yaml", None) == {vq.Int8()}


def test_layouts_that_contradict_themselves_are_refused():
    for match, given in (
        ("^--recipe must stand without --bits, --group and --asym", (2, None, False, Path(), None)),
        ("^--group and --asymmetric must stand without -ssvq", (None, 8, False, None, "ssvq")),
        ("^--bits must be 2 or 3 with -vq, not 4; give", (4, None, False, None, "vq")),
        ("^--bits 8 must stand without --group and --asymmetric", (8, None, True, None, None)),
    ):
        with pytest.raises(ConfigError, match=match):
            Layout(*given)


def test_a_recipe_must_have_the_codebooks_of_the_method():
    selected = select(nn.Sequential(nn.Linear(8, 8)), vq.Recipe({"*": vq.Int4()})).layers
    Layout(None, None, False, None, None).check(selected, "gptq")
    with pytest.raises(ConfigError, match=r"^r.yaml: a layer must be vq with --method gptq-vq,"):
        Layout(None, None, False, Path("r.yaml"), "vq").check(selected, "gptq-vq")
