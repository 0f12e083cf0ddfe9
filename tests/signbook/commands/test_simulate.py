"""``signbook simulate``: the document, the check against the cycle model, mistakes."""

import json

import pytest

from tests.hwsim.containers import Maker, write
from tests.hwsim.programs import Net, network
from tests.signbook.runner import refused, run
from vq import SSVQ, Recipe


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--memory", "ddr9"), "memory"),
        (("--set", "bus_bits=100"), "bus_bits must be 64, 128, 256 or 512, not 100"),
        (("--set", "bus_bit=128"), "did you mean 'bus_bits'?"),
        (("--set", "128"), "KEY=VALUE"),
        (("--methods", "int5"), "int5"),
        (("--set", "clock_mhz=0"), "clock_mhz must be a number above 0, not '0'"),
        (("--accelerator", "absent.yaml"), "accelerator absent.yaml: must be a readable file"),
        (("--rom", "absent.npy"), "absent.npy: must be an array file of numpy"),
        (("--set", "codebook_rom=16x8"), "codebook_rom must be KxD: and k * d bytes"),
    ],
)
def test_impossible_simulations(file, arguments, message):
    assert message in refused("simulate", file, *arguments)
    assert message in refused("estimate", file, *arguments)


@pytest.mark.rtl
def test_simulate_measures_the_file(file, small, tmp_path):
    out, memory = tmp_path / "simulate.json", "ideal:bytes_per_cycle=16,latency=8"
    done = run("simulate", file, "--accelerator", small, "--json", out, "--memory", memory)
    assert done.returncode == 0, done.stderr
    document = json.loads(out.read_text())
    assert document["schema"] == "signbook.simulate/2" and document["engine"] == "rtl"
    assert "re-ordered" not in done.stdout
    for name in ("compressed", "int8"):
        one = document["runs"][name]
        assert one["bit_exact"] is True and "reordered" not in one
        assert one["busy_cycles"] + sum(one["stall_cycles"].values()) == one["cycles"]
        assert sum(layer["cycles"] for layer in one["layers"]) == one["cycles"]
        assert sum(one["bytes_by"].values()) == one["bytes_read"]
    ratio = document["runs"]["int8"]["cycles"] / document["runs"]["compressed"]["cycles"]
    assert document["speedup"] == pytest.approx(ratio)


@pytest.mark.rtl
def test_check_and_estimate_agree(file, small, tmp_path):
    out = tmp_path / "rtl.json"
    small.write_text(f"{small.read_text()}clock_mhz: 700\n")
    common = ("--memory", "ddr4-2400", "--accelerator", small, "--methods", "int4")
    done = run("simulate", file, "--check", "--json", out, *common)
    assert done.returncode == 0, done.stderr
    assert "cycle model: all counters agree in 2 runs" in done.stdout
    counted = json.loads(out.read_text())
    assert counted["memory"]["clock_mhz"] == 700 and counted["speedup"] is None
    done = run("estimate", file, "--json", out, *common)
    assert done.returncode == 0, done.stderr
    assert "waits for memory" in done.stdout and "memory energy" in done.stdout
    predicted = json.loads(out.read_text())
    assert predicted["engine"] == "model"
    for name, one in predicted["runs"].items():
        assert one["energy_by"] == counted["runs"][name]["energy_by"]


def test_simulate_layers_of_a_file_beside_a_rom(file, small, rom):
    text = refused("simulate", file, "--accelerator", small, "--rom", rom)
    assert "layer 'fc0': codebook must be rom:" in text and "not fc0.codebook" in text
    assert "layer 'fc1': codebook must be rom:" in text


@pytest.mark.rtl
def test_a_file_in_another_order(small, tmp_path):
    """It runs on a re-ordered copy, which the console and the document say."""
    file, out = tmp_path / "file.vq.safetensors", tmp_path / "simulate.json"
    write(file, [Maker().ssvq("fc", (40, 64), 8, 16, tile_outputs=16)])
    before = file.read_bytes()
    done = run("simulate", file, "--accelerator", small, "--json", out, "--check")
    assert done.returncode == 0, done.stderr
    assert (
        "streams re-ordered in a temporary copy: blocks of 8 outputs, the rows of the array, where "
        "the file has 16\n"
    ) in done.stdout
    runs = json.loads(out.read_text())["runs"]
    assert runs["compressed"]["reordered"] == {"from": 16, "to": 8}
    assert all(each["bit_exact"] for each in runs.values()) and "reordered" not in runs["int8"]
    assert file.read_bytes() == before


@pytest.mark.slow
@pytest.mark.rtl
@pytest.mark.parametrize("array", ["8x8", "32x32"])
def test_an_array_is_all_that_has_to_be_said(array, tmp_path):
    """A whole network, packed for 16 outputs per block; every counter is the model's."""
    file, out = network(tmp_path, Net(), (3, 13, 12), Recipe({"*": SSVQ(d=4)})), tmp_path / "out"
    for engine, *check in (["simulate", "--check"], ["estimate"]):
        done = run(engine, file, "--set", f"array={array}", "--json", out, *check)
        assert done.returncode == 0, done.stderr
        document = json.loads(out.read_text())
        assert document["runs"]["compressed"]["reordered"]["to"] == document["accelerator"]["rows"]
        exact = {each["bit_exact"] for each in document["runs"].values()}
        assert exact == {True if check else None}


def test_waves_that_cannot_be_written(file, tmp_path):
    for place in ("absent/run.fst", "."):
        message = refused("simulate", file, "--waves", tmp_path / place)
        assert "give --waves another" in message and "Traceback" not in message
