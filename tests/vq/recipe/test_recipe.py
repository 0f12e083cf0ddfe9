"""Patterns, their precedence, YAML, and every message."""

import pytest

from vq import SSVQ, VQ, Int2, Int3, Int4, Int8, Recipe
from vq.errors import RecipeError

NAMES = ["stem", "blocks.0.fc1", "blocks.0.fc2", "blocks.1.fc1", "head"]


def test_exact_beats_glob_beats_regex_beats_star():
    recipe = Recipe(
        {
            "*": Int8(),
            "re:.*fc1": VQ(d=4, k=16),
            "blocks.*": SSVQ(d=8, k=16),
            "blocks.1.fc1": None,
            "re:head": VQ(d=2, k=8),
        }
    )
    chosen = recipe.resolve(NAMES)
    assert chosen == {
        "stem": Int8(),
        "blocks.0.fc1": SSVQ(d=8, k=16),
        "blocks.0.fc2": SSVQ(d=8, k=16),
        "blocks.1.fc1": None,
        "head": VQ(d=2, k=8),
    }


def test_first_of_several_globs_wins():
    assert Recipe({"blocks.0.*": Int8(), "blocks.*": None}).resolve(NAMES)["blocks.0.fc1"] == Int8()
    assert Recipe({"blocks.*": None, "blocks.0.*": Int8()}).resolve(NAMES)["blocks.0.fc1"] is None


def test_layers_without_a_rule_are_kept():
    assert Recipe({"head": Int8()}).resolve(NAMES)["stem"] is None


def test_regex_must_match_the_whole_name():
    with pytest.raises(RecipeError, match="must match at least one layer, not 0"):
        Recipe({"re:fc": Int8()}).resolve(NAMES)


def test_keys_that_match_nothing_are_all_reported_with_a_suggestion():
    with pytest.raises(RecipeError) as error:
        Recipe({"blocks.1.fcl": Int8(), "haed": Int8(), "blocks.*": None}).resolve(NAMES)
    assert str(error.value) == (
        "recipe has 2 problems:\n"
        "- key 'blocks.1.fcl' must match at least one layer, not 0 "
        "(did you mean 'blocks.1.fc1'?)\n"
        "- key 'haed' must match at least one layer, not 0 (did you mean 'head'?)"
    )


def test_all_impossible_settings_are_reported_at_once():
    with pytest.raises(RecipeError) as error:
        Recipe(
            {
                "a": SSVQ(d=0, k=1),
                "b": VQ(axis="up", scale="row"),
                "c": SSVQ(d=8, axis="out", tile_outputs=12),
                "d": Int8(tile_outputs=0),
                "re:(": Int8(),
                "e": "int8",  # type: ignore[dict-item]
            }
        )
    assert str(error.value).splitlines() == [
        "recipe has 8 problems:",
        "- key 'a': d must be 1 to 64, not 0",
        "- key 'a': k must be 2 to 65536, not 1",
        "- key 'b': axis must be auto, in, out, kernel, not 'up'",
        "- key 'b': scale must be 'layer', 'output' or 'norm', not 'row'",
        "- key 'c': tile_outputs must be a multiple of d, not 12",
        "- key 'd': tile_outputs must be positive",
        "- key 're:(': must be a regular expression, but it is none from place 4 on",
        "- key 'e': method must be SSVQ, VQ, Int8, Int4, Int3, Int2 or None, not 'int8'",
    ]


def test_grouped_methods_in_yaml():
    text = """
    a: {method: int4}
    b: {method: int3, group: 64, zeros: true}
    """
    assert Recipe.from_yaml(text) == Recipe({"a": Int4(), "b": Int3(group=64, zeros=True)})
    assert Recipe({"a": Int4()}).to_json() == {
        "a": {"method": "int4", "group": 128, "zeros": False, "tile_outputs": 16}
    }
    with pytest.raises(RecipeError) as error:
        Recipe.from_yaml(
            """
            a: {method: int-4}
            b: {method: int2, groups: 64}
            c: {method: int4, group: large}
            """
        )
    assert str(error.value).splitlines()[1:] == [
        "- key 'a': method must be one of ssvq, vq, int8, int4, int3, int2, not 'int-4' "
        "(did you mean 'int4'?)",
        "- key 'b': int2 has no setting 'groups' (did you mean 'group'?)",
        "- key 'c': group must be a whole number, not 'large'",
    ]
    with pytest.raises(RecipeError) as error:
        Recipe({"a": Int4(group=0, tile_outputs=0)})
    assert str(error.value).splitlines()[1:] == [
        "- key 'a': group must be positive, not 0",
        "- key 'a': tile_outputs must be positive, not 0",
    ]


def test_empty_recipe_is_refused():
    with pytest.raises(RecipeError, match="rules must hold at least one pattern, not none"):
        Recipe({})


def test_json_names_the_method_and_every_setting():
    assert Recipe({"a": SSVQ(), "b": None}).to_json() == {
        "a": {
            "method": "ssvq",
            "d": 8,
            "k": 16,
            "axis": "auto",
            "scale": "layer",
            "tile_outputs": 16,
            "shared": None,
            "parity": False,
        },
        "b": None,
    }


def test_parity_needs_two_weights_and_shared_books_one_shape():
    with pytest.raises(RecipeError) as error:
        Recipe(
            {
                "a": SSVQ(d=1, k=2, parity=True),
                "b": VQ(d=4, k=16, shared="book"),
                "c": VQ(d=4, k=32, shared="book"),
                "d": SSVQ(d=4, k=16, shared="book"),
                "e": VQ(shared=""),
            }
        )
    assert str(error.value).splitlines()[1:] == [
        "- key 'a': d must be at least 2 with parity signs, not 1",
        "- key 'e': shared must be a name, not ''",
        "- key 'c': codebook 'book' must have the method, d and k that key 'b' gives it",
        "- key 'd': codebook 'book' must have the method, d and k that key 'b' gives it",
    ]


FULL = Recipe(
    {
        "blocks.*": SSVQ(d=8, k=16, axis="out", scale="output", parity=True),
        "re:.*fc": VQ(d=4, k=256, shared="all"),
        "head": Int8(tile_outputs=8),
        "a": Int4(),
        "b": Int3(group=64, zeros=True),
        "c": Int2(tile_outputs=4),
        "*": None,
    }
)


def test_json_and_yaml_come_back(tmp_path):
    import yaml

    assert Recipe.from_json(FULL.to_json()) == FULL
    text = yaml.safe_dump(FULL.to_json(), sort_keys=False)
    assert Recipe.from_yaml(text) == FULL
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    assert Recipe.from_yaml(path) == FULL


def test_all_problems_of_a_file_are_reported_at_once():
    with pytest.raises(RecipeError) as error:
        Recipe.from_yaml(
            """
            a: {method: ssvq, d: eight, kk: 16}
            b: {method: svq}
            c: ssvq
            d: {method: vq, d: 4.5}
            """
        )
    assert str(error.value).splitlines() == [
        "recipe has 5 problems:",
        "- key 'a': ssvq has no setting 'kk' (did you mean 'k'?)",
        "- key 'a': d must be a whole number, not 'eight'",
        "- key 'b': method must be one of ssvq, vq, int8, int4, int3, int2, not 'svq' "
        "(did you mean 'ssvq'?)",
        "- key 'c': must be null or name its method, not 'ssvq'",
        "- key 'd': d must be a whole number, not 4.5",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: null\na: null\n", r"^recipe: must be valid YAML, but the key 'a' is given twice"),
        ("a: [\n", r"^recipe: must be valid YAML"),
        ("- a\n- b\n", r"^recipe must map patterns to methods, not be \['a', 'b'\]$"),
        ("a: !!python/object:os.system {}\n\n", r"^recipe: must be valid YAML"),
        ("missing.yaml", r"^recipe missing.yaml: must be a readable file, but"),
    ],
)
def test_files_that_are_no_recipe(text, message):
    with pytest.raises(RecipeError, match=message):
        Recipe.from_yaml(text)
