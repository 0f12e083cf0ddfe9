"""Settings: what is wrong is said by name, so that nobody has to read it from a text."""

from dataclasses import dataclass

import pytest

from rtl.config import StreamerConfig
from rtl.settings import read_settings, require, type_problems, unchecked, unmet
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


def test_what_is_impossible_can_be_asked_why():
    impossible = unchecked(StreamerConfig, {**StreamerConfig().to_mapping(), "d_min": 3})
    assert impossible.problems() == [("d_min", "d_min must be 2 or 4, not 3")]


def test_settings_as_text():
    assert read_settings(Some, {"size": "3", "text": "3"}) == {"size": 3, "text": "3"}
    with pytest.raises(ConfigError) as caught:
        read_settings(Some, {"sise": 3, "size": "x"}, also=["both"], problems=[("both", "earlier")])
    # The command line names the class: no other than those of vq.errors.
    assert type(caught.value) is ConfigError
    assert str(caught.value).splitlines()[1:] == [
        "- earlier",
        "- key must be one of size, text, both, not 'sise' (did you mean 'size'?)",
        "- size must be an integer, not 'x'",
    ]
