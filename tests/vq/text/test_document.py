"""The one rule for YAML."""

import pytest

from vq.errors import ConfigError, RecipeError
from vq.text.document import parse_yaml


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("", None),
        ("\ufeffa: 1\n", {"a": 1}),
        ("0: a\n1.10: b\nno: c\n~: d\n", {"0": "a", "1.10": "b", "no": "c", "~": "d"}),
        ("a: 2024-13-45\nb: [1, 2.5, no, ~]\n", {"a": "2024-13-45", "b": [1, 2.5, False, None]}),
        ("a: &x {k: 1, d: 2}\nb: {<<: *x, k: 3}\n", {"a": {"k": 1, "d": 2}, "b": {"d": 2, "k": 3}}),
        ("a: &x {k: 1}\nb: {k: 3, <<: *x}\n", {"a": {"k": 1}, "b": {"k": 3}}),
        ("b: {<<: [{k: 1}, {k: 2, d: 3}], e: 4}\n", {"b": {"k": 1, "d": 3, "e": 4}}),
        ("a: &x {<<: {k: 1}, d: 2}\nb: {<<: *x}\n", {"a": {"k": 1, "d": 2}, "b": {"k": 1, "d": 2}}),
        ('"<<": 1\n', {"<<": 1}),
    ],
)  # fmt: skip
def test_what_yaml_says(text, data):
    assert parse_yaml(text, "it") == data


def test_own_keys_come_after_merged_ones():
    (_, merged) = parse_yaml("a: &x {rows: 8, array: 1}\nb: {<<: *x, rows: 4}\n", "it").values()
    assert list(merged) == ["array", "rows"]


def test_data_of_an_alias_are_not_shared():
    found = parse_yaml("a: &x [1]\nb: *x\n", "it")
    assert found["a"] == found["b"] and found["a"] is not found["b"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\na: 2\n", r"the key 'a' is given twice \(line 2, column 1\)"),
        ('0: 1\n"0": 2\n', r"the key '0' is given twice \(line 2, column 1\)"),
        ("a: {b: {c: 1, c: 1}}\n", r"the key 'c' is given twice \(line 1, column 15\)"),
        ("a: {<<: {k: 1, k: 2}}\n", r"the key 'k' is given twice \(line 1, column 16\)"),
        ("<<: {a: 1}\n<<: {b: 1}\n", r"the key '<<' is given twice \(line 2, column 1\)"),
        ("a: {<<: 3}\n", r"<< must merge a mapping, or a list of mappings \(line 1, column 9\)"),
        ("a: {<<: [{}, 3]}\n", r"<< must merge a mapping, or .*\(line 1, column 14\)"),
        ("? [a, b]\n: 1\n", r"a key must be a text, not a list or a mapping \(line 1, column 3\)"),
        ("? {a: b}\n: 1\n", r"a key must be a text, not a list or a mapping \(line 1, column 3\)"),
        ("{{a: b}}: 1\n", r"a key must be a text, not a list or a mapping \(line 1, column \d\)"),
        ("&a [*a]\n", r"it nests deeper than 32 levels \(line 1, column 1\)"),
        ("a: &a {<<: *a}\n", r"it nests deeper than 32 levels \(line 1, column 4\)"),
        ("[" * 40 + "]" * 40, r"it nests deeper than 32 levels \(line 1, column 34\)"),
        ("[" * 9999, r"it nests deeper than 32 levels"),
        ("{a: " * 5000, r"it nests deeper than 32 levels"),
        ("a: " + "9" * 5000, r"'9{40}' is no !!int \(line 1, column 4\)"),
        ("a: !!float x\n", r"'x' is no !!float \(line 1, column 4\)"),
        ("a: !!bool ''\n", r"'' is no !!bool \(line 1, column 4\)"),
        ("a: !!set {x}\n", r"the tag !!set is none of plain data \(line 1, column 4\)"),
        ("!!python/name:os.system x", r"the tag !!python/name:os.system is none of plain data .*"),
        ("a: [\n", r"a bracket does not end \(line 2, column 1\)"),
        ("{a: 1, b", r"a bracket does not end \(line 1, column 9\)"),
        ("a: 'x\n", r"a quotation does not end \(line 2, column 1\)"),
        ("a: 1\n---\nb: 1\n", r"it must be one document, not several \(line 2, column 1\)"),
        ("a: 1\nb: \x07\n", r"the character '\\x07' may be in none \(line 2, column 4\)"),
        ("a: *x\n", r"an alias stands before its anchor \(line 1, column 4\)"),
        ("a: &x 1\nb: &x 2\n", r"an anchor is given twice \(line 2, column 4\)"),
        ("a:\n\t- b\n", r"a tab stands where only spaces may \(line 2, column 1\)"),
        ("a: b: c\n", r"a colon must follow a key, at the start of a line \(line 1, column 5\)"),
        ("a:\n   - b\n  - c\n", r"it must be indented like the lines before it \(line 3, col.*"),
        ('a: "\\q"\n', r"a quotation has an escape that is none \(line 1, column 6\)"),
        ("a: @x\n", r"a value must not start with this character; quote it \(line 1, column 4\)"),
        ("a: ]\n", r"it is none from here on \(line 1, column 4\)"),
    ],
)  # fmt: skip
def test_what_is_refused(text, problem):
    with pytest.raises(RecipeError, match=rf"^it: must be valid YAML, but {problem}$"):
        parse_yaml(text, "it", error=RecipeError)


def test_aliases_of_aliases_do_not_explode():
    lines = ["a0: &a0 [0]", *(f"a{i}: &a{i} [{f'*a{i - 1}, ' * 10}]" for i in range(1, 9))]
    with pytest.raises(
        ConfigError, match=r"but it holds more than 100,000 values, aliases counted"
    ):
        parse_yaml("\n".join(lines), "it")
