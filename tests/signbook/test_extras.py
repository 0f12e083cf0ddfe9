"""Optional packages: absent, or there and broken, are told apart."""

import sys

import pytest

from signbook.extras import require
from vq.errors import ConfigError


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that is there; its part ``binary`` was built for another torch."""
    folder = tmp_path / "optional_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("value = 3\n")
    (folder / "binary.py").write_text("raise RuntimeError('symbol\\n  not found')\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "optional_package"
    for name in [name for name in sys.modules if name.startswith("optional_package")]:
        del sys.modules[name]


def test_what_is_there(package):
    assert require(package, extra="x", purpose="a test").value == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent_package.part", r"^a test: package 'absent_package' must be installed, not absent; "
         r"run: pip install 'signbook\[x\]'$"),
        ("optional_package.binary", r"^a test: package 'optional_package' must load, but symbol "
         r"not found; install it"),
        # An older version that lacks a part: to install the extra would not help.
        ("optional_package.part", r"must load, but No module named 'optional_package.part'; "),
    ],
)  # fmt: skip
def test_what_is_not(package, name, message):
    with pytest.raises(ConfigError, match=message):
        require(name, extra="x", purpose="a test")
