"""Formats by name; and one from outside, which needs its file and a line, and nothing else."""

from dataclasses import fields
from pathlib import Path

import pytest
import torch

import vq
from tests.vq.models import Net, batches
from vq.container import open_container
from vq.errors import RecipeError
from vq.formats.format import Format
from vq.formats.model import compressed_layers
from vq.formats.registry import FORMATS, format_named


@pytest.mark.parametrize("name", FORMATS)
def test_names(name):
    kind = format_named(name)
    assert kind.name == name and issubclass(kind, Format)
    assert "tile_outputs" in {field.name for field in fields(kind)}
    assert getattr(vq, kind.__name__) is kind


def test_no_such_format():
    with pytest.raises(KeyError, match="int9"):
        format_named("int9")


RECIPE = """
fc1: {method: ternary, group: 24}
fc2: {method: ssvq, d: 4, k: 8}
"""


def test_a_format_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From YAML to plan, compression, a step of training, file and back."""
    monkeypatch.setitem(FORMATS, "ternary", "tests.vq.formats.ternary:Ternary")
    recipe = vq.Recipe.from_yaml(RECIPE)
    assert vq.Recipe.from_json(recipe.to_json()) == recipe
    torch.manual_seed(0)
    model, path = Net(), tmp_path / "x.vq.safetensors"
    planned = vq.plan(model, recipe)
    vq.compress_(model, recipe, progress=False)
    (first, _) = compressed_layers(model)
    before = first.originals[0].detach().clone()
    vq.finetune_(model, batches(1), epochs=1, progress=False)
    assert not torch.equal(first.originals[0], before)
    assert vq.save(model, path).file_bytes == planned.file_bytes == path.stat().st_size
    with open_container(path) as file:
        assert set(file.integers("fc1").flat) == {-1, 0, 1}
    same = vq.load(path, into=Net())
    x = batches(1)[0][0]
    assert torch.equal(same.eval()(x), model.eval()(x))


def test_settings_of_a_format_from_outside_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "ternary", "tests.vq.formats.ternary:Ternary")
    with pytest.raises(RecipeError, match=r"- key 'a': group must be positive, not 0$"):
        vq.Recipe.from_yaml("a: {method: ternary, group: 0}\n")
    with pytest.raises(
        RecipeError, match=r"ternary has no setting 'groups' \(did you mean 'group'"
    ):
        vq.Recipe.from_yaml("a: {method: ternary, groups: 8}\n")
