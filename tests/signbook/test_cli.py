"""The command line: exit status, one-line errors, documents."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vq.container import Layer, write_container


def run(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from signbook.cli import main; main()", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200", **(env or {})}
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "small.vq.safetensors"
    layers = [
        Layer.ssvq(
            f"fc{i}",
            codebook=rng.integers(0, 128, (16, 8)).astype(np.int8),
            indices=rng.integers(0, 16, 64 * 8),
            signs=rng.random((64 * 8, 8)) < 0.5,
            scale=np.float32([0.01]),
            shape=(64, 64),
        )
        for i in range(2)
    ]
    write_container(path, layers)
    return path


def refused(*arguments: object, env: dict[str, str] | None = None) -> str:
    """Run a command that must fail with status 1 and one error; return its text."""
    done = run(*arguments, env=env)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")
    return done.stderr


def test_inspect_accounts_for_every_byte(file, tmp_path):
    out = tmp_path / "inspect.json"
    done = run("inspect", file, "--json", out)
    assert done.returncode == 0, done.stderr
    document = json.loads(out.read_text())
    assert document["schema"] == "signbook.inspect/1"
    assert [layer["name"] for layer in document["layers"]] == ["fc0", "fc1"]
    first = document["layers"][0]
    assert (first["stream_bytes"], first["codebook_bytes"]) == (64 * 8 * 12 // 8, 128)
    assert document["file_bytes"] == file.stat().st_size
    weights = 2 * 64 * 64
    total = document["bits_per_weight"] * weights / 8
    assert document["ratio_compressed_layers_fp32"] == pytest.approx(4 * weights / total)
    assert document["ratio_int8"] == pytest.approx((weights + 2 * 4 * 64) / total)


def test_help_lists_the_commands():
    done = run("--help")
    assert done.returncode == 0
    for command in ("demo", "inspect", "rtl", "simulate", "estimate"):
        assert command in done.stdout


def test_usage_errors_exit_with_2():
    assert run("inspect").returncode == 2
    assert run("no-such-command").returncode == 2
    assert run("demo", "--seed", "-1").returncode == 2


def test_missing_file():
    assert "absent.vq.safetensors: must be a readable file" in refused(
        "inspect", "absent.vq.safetensors"
    )


def test_damaged_file(file):
    data = bytearray(file.read_bytes())
    data[-1] ^= 4
    file.write_bytes(data)
    assert str(file) in refused("inspect", file)


def test_folder_that_cannot_be_written(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("not a folder")
    text = refused("demo", "--out", blocker / "out")
    assert "must be a folder that can be written" in text and "--out" in text
    assert blocker.read_text() == "not a folder"


@pytest.mark.parametrize("missing", ["g++", "make", "perl"])
def test_missing_compiler_is_found_before_any_work(tmp_path, missing):
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in {"g++", "make", "perl"} - {missing}:
        (tools / tool).write_text("#!/bin/sh\n")
        (tools / tool).chmod(0o755)
    text = refused("demo", "--out", tmp_path / "out", env={"PATH": str(tools)})
    assert "SimulationError" in text and missing in text and "apt" in text
    assert list((tmp_path / "out").iterdir()) == []


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
def test_simulate_measures_the_file(file, tmp_path):
    out = tmp_path / "simulate.json"
    done = run("simulate", file, "--json", out, "--memory", "ideal:bytes_per_cycle=16,latency=8")
    assert done.returncode == 0, done.stderr
    document = json.loads(out.read_text())
    assert document["schema"] == "signbook.simulate/1" and document["engine"] == "rtl"
    for name in ("compressed", "int8"):
        one = document["runs"][name]
        assert one["bit_exact"] is True
        assert one["busy_cycles"] + sum(one["stall_cycles"].values()) == one["cycles"]
        assert sum(layer["cycles"] for layer in one["layers"]) == one["cycles"]
        assert sum(one["bytes_by"].values()) == one["bytes_read"]
    ratio = document["runs"]["int8"]["cycles"] / document["runs"]["compressed"]["cycles"]
    assert document["speedup"] == pytest.approx(ratio)


@pytest.mark.rtl
def test_check_and_estimate_agree(file, tmp_path):
    out, settings = tmp_path / "rtl.json", tmp_path / "a.yaml"
    settings.write_text("array: 16x16\nclock_mhz: 700\n")
    common = ("--memory", "ddr4-2400", "--accelerator", settings, "--methods", "int4")
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


def test_estimate_of_a_workload(tmp_path):
    out = tmp_path / "estimate.json"
    done = run(
        "estimate", "minilm-l6:tokens=1", "--recipe", "ssvq:d=8,k=16", "--methods", "int8,int4",
        "--json", out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(out.read_text())
    assert list(document["runs"]) == ["compressed", "int8", "int4"]
    assert document["workload"]["name"] == "minilm-l6" and not document["workload"]["trained"]
    assert 1 < document["speedup_with_rest"] < document["speedup"]
    assert "not run by the accelerator" in done.stdout
    assert "must have a recipe" in refused("estimate", "minilm-l6:tokens=1")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--weights-only", "--report"), "--report must stand without --weights-only"),
        (("--json", "report.json"), "--json must stand beside --report"),
    ],
)
def test_rtl_options_that_do_not_fit(tmp_path, options, problem):
    done = run("rtl", "--out", tmp_path / "rtl", *options)
    assert done.returncode == 1 and problem in done.stderr
    assert not (tmp_path / "rtl").exists()


def test_rtl_writes_verilog_and_manifest(tmp_path):
    done = run("rtl", "--out", tmp_path / "rtl", "--set", "bus_bits=64")
    assert done.returncode == 0, done.stderr
    verilog = Path(done.stdout.strip())
    assert "m_axi_araddr" in verilog.read_text()
    manifest = json.loads(verilog.with_suffix(".json").read_text())
    assert manifest["config"]["bus_bits"] == 64
    assert manifest["ports"]["m_axi_rdata"] == {"direction": "input", "bits": 64}


@pytest.fixture
def rom(tmp_path: Path) -> Path:
    path = tmp_path / "rom.npy"
    np.save(path, np.random.default_rng(1).integers(0, 128, (16, 8)).astype(np.int8))
    return path


def test_rtl_with_a_codebook_in_rom(tmp_path, rom):
    done = run("rtl", "--out", tmp_path / "rtl", "--weights-only", "--rom", rom)
    assert done.returncode == 0, done.stderr
    manifest = json.loads(Path(done.stdout.strip()).with_suffix(".json").read_text())
    assert manifest["config"]["codebook_rom"] == f"16x8:{np.load(rom).tobytes().hex()}"


def test_rtl_codebooks_that_do_not_fit(tmp_path, rom):
    settings = ("rtl", "--out", tmp_path / "rtl", "--rom", rom)
    assert "--rom must stand without" in refused(*settings, "--set", "codebook_rom=")
    assert "empty beside int8_only = 1" in refused(*settings, "--set", "int8_only=1")
    np.save(rom, np.zeros((16, 8)))
    assert "codebook must be [k, d] int8, not [16, 8] float64" in refused(*settings)
    rom.write_bytes(rom.read_bytes()[:100])
    assert "rom.npy: must be an array file of numpy" in refused(*settings)
    assert not (tmp_path / "rtl").exists()


def test_simulate_layers_of_a_file_beside_a_rom(file, rom):
    text = refused("simulate", file, "--rom", rom)
    assert "layer 'fc0': codebook must be rom:" in text and "not fc0.codebook" in text
    assert "layer 'fc1': codebook must be rom:" in text
