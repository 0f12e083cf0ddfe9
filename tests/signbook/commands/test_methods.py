"""``signbook finetune --method``: each method from the command line, and what is refused."""

import json

import pytest

import vq
from signbook.commands.methods import METHODS, learning_of
from signbook.files import FILE_NAME
from signbook.naming import resolve_model
from tests.signbook.runner import refused, run
from vq.errors import ConfigError
from vq.learning.rates import Rates

MODEL = "py:signbook.zoo.digits:DigitsViT?depth=1&dim=32"
TRAIN = "py:signbook.data:digits?split=train&batch=450"
RECIPE = "blocks.*: {method: ssvq, d: 8, k: 16, scale: output}\nhead: null\n"


@pytest.mark.parametrize("method", METHODS)
def test_each_method_trains_and_writes(tmp_path, method):
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out"
    recipe.write_text(RECIPE)
    options = ("--recipe", recipe, "--data", TRAIN, "--out", out, "--epochs", 4, "--device", "cpu")
    done = run("finetune", MODEL, *options, "--method", method, "--candidates", 2)
    assert done.returncode == 0, done.stderr
    document = json.loads((out / "run.json").read_text())
    assert document["method"] == method
    told = document["run"]["rules"]["candidates"]
    assert len(told) == 4 and told[-1]["decided"] == 1 and told[-1]["moved"] > 0
    assert "Candidates(n=2" in document["run"]["settings"]["rules"][0]
    vq.load(out / FILE_NAME, into=resolve_model(MODEL))


def test_rates_are_the_methods_unless_given():
    given = {"signs": None, "codebooks": 0.5, "rest": None}
    learning = learning_of("vq4dit", None, given, epochs=1, teacher=False)
    assert learning.rates(fixed_signs=False) == Rates(1e-2, 0.5, 1e-3, kept=0)
    assert learning.rates(fixed_signs=True).signs == 0
    plain = learning_of(None, None, given, epochs=1, teacher=True)
    assert plain.rates(fixed_signs=True) == Rates(codebooks=0.5)


def test_what_does_not_fit_is_refused(tmp_path):
    given = dict.fromkeys(("signs", "codebooks", "rest"))
    for match, (method, candidates, teacher) in {
        r"^--method must be one of vq4dit, vim-vq, vq4all, not 'vimvq' .*'vim-vq'": ("vimvq", 2, 0),
        r"^--candidates must come with --method, not without$": (None, 2, False),
        r"^--teacher must be left out with --method vq4all, which has one$": ("vq4all", 2, True),
    }.items():
        with pytest.raises(ConfigError, match=match):
            learning_of(method, candidates, given, epochs=1, teacher=bool(teacher))
    with pytest.raises(
        ConfigError, match=r"^--epochs must be positive with --method vim-vq, not 0$"
    ):
        learning_of("vim-vq", None, given, epochs=0, teacher=False)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    options = ("--recipe", recipe, "--data", TRAIN, "--out", tmp_path / "out")
    message = refused("finetune", MODEL, *options, "--method", "vq4dit", "--candidates", 17)
    assert "n must be at most its k = 16, not 17" in message
