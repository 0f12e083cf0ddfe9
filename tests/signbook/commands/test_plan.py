"""``signbook plan``: what needs no line of its own is summed up; the whole process is counted."""

import json

from tests.signbook.runner import run

MODEL = "py:signbook.zoo.digits:DigitsViT?depth=2&dim=32"


def test_layers_without_a_matrix_are_one_line_a_kind_and_all_in_the_document(tmp_path):
    recipe, document = tmp_path / "recipe.yaml", tmp_path / "plan.json"
    recipe.write_text('"blocks.*": {method: ssvq}\n')
    done = run("plan", MODEL, "--recipe", recipe, "--json", document)
    assert done.returncode == 0, done.stderr
    found = json.loads(document.read_text())
    assert sum("LayerNorm" in row["reason"] for row in found["skipped"]) == 5
    assert done.stdout.count("LayerNorm") == 1
    assert "5 x LayerNorm" in done.stdout and "320 weights in all" in done.stdout
    assert "kept by the recipe" in done.stdout
    assert found["process_seconds"] > found["seconds"] > 0
    assert found["process_peak_bytes"] > 100e6 > found["memory_bytes"]
