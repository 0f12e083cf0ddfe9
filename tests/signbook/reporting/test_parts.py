"""How numbers look in a report: figures that fit, dashes where there are none."""

import pytest

from signbook.reporting.parts import number, per_one, ratio, settings, share


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (0, "0"), (999, "999"), (1234567, "1,234,567"), (2.0, "2"),
        (0.123456, "0.1235"), (-3.14159, "-3.142"), (999.96, "1000"), (12345.6, "12,346"),
    ],
)  # fmt: skip
def test_numbers(value, text):
    assert number(value) == text


def test_ratios_and_shares():
    assert (ratio(None), ratio(5.116), ratio(0.0)) == ("–", "5.12x", "0.00x")
    assert (share(1, 3), share(0, 3), share(1, 0)) == ("33.3\u00a0%", "0.0\u00a0%", "–")
    assert (per_one(3.0, 2), per_one(None, 2), per_one(3.0, 0)) == (1.5, None, None)


def test_settings_are_one_line():
    given = {"rows": 8, "rate": 0.5, "off": None, "rom": "", "codebook_rom": "16x8:" + "0" * 99}
    line = settings(given)
    assert line == "rows=8  rate=0.5  codebook_rom=16x8:" + "0" * 42 + "…"
