"""Recipes by a short text, and what the accelerator leaves to others."""

from pathlib import Path

import pytest

from hwsim.measure.baselines import BASELINES, GROUP
from hwsim.workloads import baseline_recipe, plan_workload, recipe_of, rest_of, workload
from rtl import AcceleratorConfig
from vq import SSVQ, VQ, Int4, Recipe
from vq.errors import RecipeError

CONFIG = AcceleratorConfig()


@pytest.mark.parametrize(
    ("text", "method"),
    [
        ("ssvq", SSVQ()),
        ("ssvq:d=4,k=64,parity=true", SSVQ(d=4, k=64, parity=True)),
        (" vq : d = 4 , k = 256", VQ(d=4, k=256)),
        ("int4", Int4()),
        ("int4:group=64", Int4(group=64)),
    ],
)
def test_one_method_for_all_layers(text: str, method: object) -> None:
    assert recipe_of(text) == Recipe({"*": method})


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("fc: {method: vq, d: 4, k: 16}\nhead: null\n")
    assert recipe_of(str(path)) == Recipe({"fc": VQ(d=4, k=16), "head": None})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ssvp:d=8", r"method must be one of ssvq, .*, not 'ssvp' \(did you mean 'ssvq'\?\)"),
        ("ssvq:e=8", r"ssvq has no setting 'e'"),
        ("ssvq:d=x", r"d must be a whole number, not 'x'"),
        ("ssvq:d=0", r"d must be 1 to 64, not 0"),
        ("ssvq:d", r"setting must be KEY=VALUE, not 'd'"),
        ("ssvq:d=8,d=4", r"d must be given once, not twice"),
        ("absent.yaml", r"^recipe absent.yaml: must be a readable file"),
    ],
)
def test_texts_that_are_no_recipes(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe_of(text)


@pytest.mark.parametrize("method", BASELINES)
def test_a_baseline_keeps_what_is_kept(method: str) -> None:
    made = baseline_recipe(Recipe({"*": SSVQ(), "a": None, "b": VQ(d=4, k=16)}), method)
    assert {key: rule and rule.name for key, rule in made.rules.items()} == {
        "*": method, "a": None, "b": method,
    }  # fmt: skip
    assert getattr(made.rules["b"], "group", GROUP) == GROUP


def test_rest_of_deit() -> None:
    """Attention products by the array's size, all else by its columns; every repetition counts."""
    deit = workload("deit-tiny")
    for once in (False, True):
        left_out = plan_workload(deit, recipe_of("int8"), CONFIG, once=once).left_out
        rest = rest_of(deit, left_out, CONFIG, once=once)
        assert rest is not None and rest["macs"] == deit.matmul_macs
        rows = {row["name"]: row for row in rest["layers"]}
        scores = 3 * 197 * 197
        assert rows["blocks.{}.attn.scores"] == {
            "name": "blocks.{}.attn.scores", "op": "matmul", "macs": 12 * scores * 64,
            "elements": 12 * scores, "cycles": 12 * -(-scores * 64 // 256),
        }  # fmt: skip
        assert rows["blocks.{}.attn.softmax"]["cycles"] == 12 * -(-scores // 16)
        assert rows["norm"]["cycles"] == 197 * 192 // 16
        assert rest["cycles"] == sum(row["cycles"] for row in rest["layers"])
        assert not any(row["op"] in ("linear", "conv2d") for row in rest["layers"])


def test_a_kept_layer_is_rest() -> None:
    """One repetition of a block only."""
    llama = workload("llama-2-7b")
    left_out = {"model.layers.3.mlp.up_proj"}
    rest = rest_of(llama, left_out, CONFIG)
    assert rest is not None
    (row,) = rest["layers"]
    assert (row["name"], row["macs"]) == ("model.layers.{}.mlp.up_proj", 4096 * 11008)


def test_no_rest() -> None:
    assert rest_of(workload("llama-2-7b"), (), CONFIG) is None
