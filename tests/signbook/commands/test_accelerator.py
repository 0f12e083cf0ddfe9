"""Accelerator settings from a file and from a command line."""

from pathlib import Path

import pytest

from rtl import AcceleratorConfig
from signbook.commands.accelerator import read_settings
from vq.container import ConfigError


def config(*arguments: object) -> AcceleratorConfig:
    values, _ = read_settings(*arguments)  # type: ignore[arg-type]
    return AcceleratorConfig.from_mapping(values)


def test_the_command_line_wins(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("array: 32x16\nbus_bits: 64\nclock_mhz: 500\n")
    assert read_settings(file, None, None) == ({"array": "32x16", "bus_bits": 64}, "500")
    assert read_settings(file, ["clock_mhz=800"], None)[1] == "800"
    made = config(file, ["bus_bits=128", "rows=16"], None)
    assert (made.rows, made.columns, made.bus_bits) == (16, 16, 128)
    file.write_text("rows: 32\ncolumns: 8\n")
    made = config(file, ["array=16x64"], None)
    assert (made.rows, made.columns) == (16, 64)
    assert read_settings(None, None, None) == ({}, None)


def test_what_is_given_is_never_changed(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("bus_bits: 128\nd_max: 16\n")
    message = (
        r"^accelerator configuration has 2 problems:\n"
        r"- d_max must be .* at most columns = 8, not 16; --set d_max=8 fits\n"
        r"- bus_bits must be at most rows \* columns = 64, not 128; --set bus_bits=64 fits$"
    )
    with pytest.raises(ConfigError, match=message):
        config(file, ["array=8x8"], None)
    made = config(file, ["array=8x8", "d_max=8", "bus_bits=64"], None)
    assert (made.rows, made.d_max, made.bus_bits) == (8, 8, 64)
    with pytest.raises(ConfigError, match=r"^--set d_max must be given once, not as 8 and 4$"):
        read_settings(None, ["d_max=8", "bus_bits=64", "d_max = 4"], None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- rows\n", r"a.yaml: must map settings to values, not be \['rows'\]$"),
        ("", r"a.yaml: must map settings to values, not be None$"),
        ("1: 2\n", r"^accelerator configuration has 1 problem:\n- key must be .* not '1'$"),
        ("{", r"a.yaml: must be valid YAML, but "),
        ("row: 16\n", r"did you mean 'rows'"),
        ("rows: 16.5\n", r"rows must be an integer, not 16.5"),
    ],
)
def test_files_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        config(file, None, None)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^accelerator .*absent.yaml: must be a readable file"):
        read_settings(tmp_path / "absent.yaml", None, None)
