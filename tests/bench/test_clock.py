"""The bench of clocks: medians over placements, and what a kept placement is good for."""

import json
from pathlib import Path

import pytest

from bench import clock
from rtl.build.report import CORE
from vq.errors import ConfigError, SimulationError

#: By the placer's seed; the mean is 60.
MHZ = {1: 50.0, 2: 80.0, 3: 50.0}


@pytest.fixture
def placed(monkeypatch, tmp_path):
    """Placements asked for; each takes half an hour, so that they are made up here."""
    asked = []

    def clock_of(text, top, *, seed):
        asked.append((text, top, seed))
        return MHZ[seed] + 10 * (top == "registered_decoder")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(clock, "clock_of", clock_of)
    monkeypatch.setattr(clock, "tool_versions", lambda: "")
    monkeypatch.setattr(clock, "emit_verilog", lambda config: f"int8_only={config.int8_only}")
    monkeypatch.setattr(clock, "registered_decoder", lambda config: ("", "registered_decoder"))
    return asked


def rows(monkeypatch, *options):
    monkeypatch.setattr("sys.argv", ["clock", "--json", "found.json", *options])
    clock.main()
    found = json.loads(Path("found.json").read_text())["rows"]
    return {(row["work"], row["metric"]): row for row in found}


def test_medians_of_three_placements(monkeypatch, placed):
    found = rows(monkeypatch)
    for work, more in (("core-8x8", 0), ("core-8x8-int8", 0), ("decoder", 10)):
        assert found[work, "mhz"]["mean"] == 50 + more
        row = found[work, "placed_mhz"]
        assert (row["mean"], row["seeds"], row["stderr"]) == (60 + more, 3, pytest.approx(10))
    assert [seed for *_, seed in placed] == 3 * [1, 2, 3]
    assert {text for text, *_ in placed} == {"int8_only=0", "int8_only=1", ""}
    journal = Path("out/bench/clock.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"]["seed"] for line in journal] == 3 * [0, 1, 2]


def test_a_placement_is_kept_for_its_verilog(monkeypatch, placed):
    for _ in range(2):
        assert set(rows(monkeypatch, "--quick")) == {
            ("core-8x8", "placed_mhz"), ("core-8x8", "mhz")
        }  # fmt: skip
        assert len(placed) == 3
    monkeypatch.setattr(clock, "emit_verilog", lambda config: "another")
    rows(monkeypatch, "--quick", "--seeds", "1")
    assert len(placed) == 4


def test_works_are_what_the_report_places():
    assert (CORE.rows, CORE.columns, CORE.bus_bits, CORE.int8_only) == (8, 8, 64, 0)
    assert clock.CORES["core-8x8"] is CORE and clock.CORES["core-8x8-int8"].int8_only == 1


def test_without_tools_it_is_skipped(monkeypatch, placed):
    def missing():
        raise SimulationError("nextpnr must be installed")

    monkeypatch.setattr(clock, "tool_versions", missing)
    with pytest.raises(ConfigError, match="nextpnr must be installed"):
        rows(monkeypatch)
    assert not placed
