"""Settings: what is wrong is said by name, so that nobody has to read it from a text."""

import pickle
from dataclasses import dataclass

import pytest

from rtl.settings import SettingsError, read_settings, require, type_problems, unmet
from vq.container import ConfigError


@dataclass
class Some:
    size: int = 1
    text: str = ""


def test_problems_have_names():
    checks = [("size", False, "even"), ("text", True, "short")]
    assert unmet(Some(), checks) == [("size", "size must be even, not 1")]
    assert type_problems(Some(size=1.0, text=3)) == [
        ("size", "size must be an integer, not 1.0"),
        ("text", "text must be text, not 3"),
    ]
    require("thing", [])
    with pytest.raises(ConfigError, match=r"^thing has 1 problem:\n- size must be even, not 1$"):
        require("thing", unmet(Some(), checks))


def test_problems_outlive_a_process():
    error = pickle.loads(pickle.dumps(SettingsError("text", [("size", "size must be even")])))
    assert (str(error), error.problems) == ("text", (("size", "size must be even"),))


def test_settings_as_text():
    assert read_settings(Some, {"size": "3", "text": "3"}) == {"size": 3, "text": "3"}
    with pytest.raises(SettingsError) as caught:
        read_settings(Some, {"sise": 3, "size": "x"}, also=["both"], problems=[("both", "earlier")])
    assert caught.value.problems == (
        ("both", "earlier"),
        ("sise", "key must be one of size, text, both, not 'sise' (did you mean 'size'?)"),
        ("size", "size must be an integer, not 'x'"),
    )
