"""Settings: what is wrong is said by name, and what is not given follows from what is."""

import itertools
from dataclasses import dataclass, fields

import pytest

from rtl import AcceleratorConfig, StreamerConfig
from rtl.settings import followed, read_settings, require, type_problems, unchecked, unmet
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


# ---- what follows --------------------------------------------------------------------------------


def changed(**given: int | str) -> dict[str, int | str]:
    """Settings that are neither given nor at their default."""
    found = AcceleratorConfig.from_mapping(given).to_mapping()
    named = {*given, *(("rows", "columns") if "array" in given else ())}
    plain = AcceleratorConfig().to_mapping()
    return {name: v for name, v in found.items() if name not in named and v != plain[name]}


@pytest.mark.parametrize(
    ("given", "want"),
    [
        ({}, {}),
        ({"array": "16x16"}, {}),
        ({"array": "8x8"}, {"bus_bits": 64, "d_max": 8}),
        ({"array": "32x32"}, {}),
        ({"array": "64x64"}, {}),
        ({"array": "64x8"}, {"d_max": 8}),
        ({"rows": 8}, {}),
        ({"columns": 8}, {"d_max": 8}),
        ({"array": "8x8", "d_max": 4}, {"bus_bits": 64}),
        ({"bus_bits": 64}, {}),
        ({"bus_bits": 256}, {}),
        ({"bus_bits": 512}, {"columns": 32}),  # not rows, which the order of files follows
        ({"bus_bits": 512, "rows": 8}, {"columns": 64}),
        ({"bus_bits": 512, "columns": 8}, {"rows": 64, "d_max": 8}),
        ({"d_max": 2}, {"d_min": 2}),
        ({"d_max": 8}, {}),
        ({"d_min": 2}, {}),
        ({"burst_bytes": 4096}, {"fifo_bytes": 8192}),
        ({"fifo_bytes": 128}, {"burst_bytes": 64}),
        ({"codebook_rom": "2x2:01020304"}, {"d_min": 2}),
        ({"codebook_rom": f"512x4:{'01' * 2048}"}, {"index_bits_max": 9}),
    ],
)
def test_what_follows(given: dict, want: dict) -> None:
    assert changed(**given) == want


def test_every_size_of_array_alone_is_an_instance() -> None:
    for rows, columns in itertools.product((8, 16, 32, 64), repeat=2):
        made = AcceleratorConfig.from_mapping({"array": f"{rows}x{columns}"})
        assert (made.rows, made.columns) == (rows, columns)
        assert made.bus_bits == min(128, rows * columns) and made.d_max == min(16, columns)


def test_a_streamer_has_what_it_needs() -> None:
    assert StreamerConfig.from_mapping({"d_max": "2"}) == StreamerConfig(d_min=2, d_max=2)
    made = StreamerConfig.from_mapping({"bus_bits": 64, "burst_bytes": 2048})
    assert made == StreamerConfig(bus_bits=64, burst_bytes=2048)


@pytest.mark.parametrize(
    ("given", "problems"),
    [
        (
            {"rows": 8, "columns": 8, "bus_bits": 128},
            ["bus_bits must be at most rows * columns = 64, not 128; --set bus_bits=64 fits"],
        ),
        (
            {"d_min": 4, "d_max": 2},
            ["d_max must be 2, 4, 8 or 16 and at least d_min = 4, not 2; --set d_max=16 fits"],
        ),
        (
            {"bus_bits": 64, "burst_bytes": 4096},
            [
                "burst_bytes must be a power of two from 64 to 2048 (a page, and 256 beats of "
                "bus_bits = 64), not 4096; --set burst_bytes=1024 fits"
            ],
        ),
        (
            {"burst_bytes": 4096, "fifo_bytes": 4096},
            [
                "fifo_bytes must be a power of two from 8192 (twice burst_bytes) to 65536, not "
                "4096; --set fifo_bytes=8192 fits"
            ],
        ),
        # Of a value that is none anywhere, no other setting is to blame.
        ({"bus_bits": 32}, ["bus_bits must be 64, 128, 256 or 512, not 32"]),
        ({"rows": 8.0, "columns": 8}, ["rows must be an integer, not 8.0"]),
        ({"codebook_rom": 3}, ["codebook_rom must be text, not 3"]),
        (
            {"columns": 8, "codebook_rom": "2x16:" + "01" * 32},
            [
                "codebook_rom must have a power of two from 4 to 8 (d_min to d_max) as d, not 16",
            ],
        ),
    ],
)
def test_conflicts_are_errors_that_name_both(given: dict, problems: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"^accelerator configuration has ") as caught:
        followed(AcceleratorConfig, given)
    assert str(caught.value).splitlines()[1:] == [f"- {problem}" for problem in problems]


def test_remedies_are_remedies() -> None:
    """All that a whole configuration needs beside another array, in one error."""
    given = AcceleratorConfig().to_mapping() | {"rows": 8, "columns": 8}
    with pytest.raises(ConfigError) as caught:
        followed(AcceleratorConfig, given)
    said = [line.split("--set ")[1].split()[0] for line in str(caught.value).splitlines()[1:]]
    assert said == ["d_max=8", "bus_bits=64"]
    remedies = {name: int(value) for name, _, value in (each.partition("=") for each in said)}
    assert AcceleratorConfig(**followed(AcceleratorConfig, given | remedies)).rows == 8


def test_what_is_given_is_kept() -> None:
    """Whatever pairs of settings: an instance with both of them, or an error."""
    values = {
        "bus_bits": (64, 512), "rows": (8, 64), "columns": (8, 64), "d_min": (2, 4),
        "d_max": (2, 16), "burst_bytes": (64, 4096), "fifo_bytes": (128, 65536),
    }  # fmt: skip
    for one, other in itertools.combinations(values, 2):
        for given in ({one: a, other: b} for a, b in itertools.product(values[one], values[other])):
            try:
                found = followed(AcceleratorConfig, given)
            except ConfigError as error:
                assert one in str(error) and other in str(error)
                continue
            assert AcceleratorConfig(**found).to_mapping() == found
            assert found.items() >= given.items()
            assert found.keys() == {field.name for field in fields(AcceleratorConfig)}
