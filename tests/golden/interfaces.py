"""What Signbook shows to the outside, in a form that can be kept and compared.

Each function makes one kind of golden file anew. What depends on time, place or version is left
out by name; nothing else is.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import typer
from torch import nn
from typer.testing import CliRunner

import rescomp
import rtl
import vq
from signbook.cli import app
from tests.golden import make, models
from vq.container import write_container

HERE = Path(__file__).parent
HELP, DOCUMENTS = HERE / "help", HERE / "documents"
CONTAINERS, VERILOG = HERE / "containers.json", HERE / "verilog.json"

#: Fields of documents that measure this machine, or say which versions it has.
MACHINE = {"seconds", "process_seconds", "process_peak_bytes", "wall_seconds", "versions"}
#: Fields in which torch's arithmetic shows, which differs a little between processors.
ARITHMETIC = {"error", "asymmetric_error", "relative_error"}

#: A fixed width, and no colours: the two things that a terminal decides.
TERMINAL = {"COLUMNS": "100", "LINES": "50", "NO_COLOR": "1", "TERM": "xterm"}
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")

_MODULE = "py:tests.golden.models"
_SMALL = ("--set", "array=8x8", "--set", "bus_bits=64", "--set", "d_max=8")


def run(*arguments: object) -> str:
    """Run a command in this process, which must exit with 0, and return what it prints."""
    with mock.patch.dict("os.environ", TERMINAL):
        done = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return _ESCAPES.sub("", done.stdout)


# ---- help ----------------------------------------------------------------------------------------


def commands() -> list[str]:
    """Names of all commands, those of a group behind its own."""
    found = []
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        found += [name, *(f"{name} {part}" for part in getattr(command, "commands", ()))]
    return found


def help_file(command: str | None) -> Path:
    """Where the help of the program, or of a command, is kept."""
    return HELP / f"{command or 'signbook'}.txt".replace(" ", "-")


def help_text(command: str | None = None) -> str:
    """What ``--help`` prints, for the program or for one of its commands."""
    # The program's name is otherwise that of whatever runs this.
    words = [] if command is None else command.split()
    text = run(*words, "--help").replace("Usage: root ", "Usage: signbook ")
    return "".join(f"{line.rstrip()}\n" for line in text.strip("\n").splitlines())


# ---- documents -----------------------------------------------------------------------------------

#: Name of a golden document: the command, and its arguments with FOLDER for a temporary one.
COMMANDS: dict[str, tuple[object, ...]] = {
    "plan": ("plan", f"{_MODULE}:every_method", "--recipe", "FOLDER/recipe.yaml"),
    "inspect": ("inspect", "FOLDER/stored.vq.safetensors"),
    "inspect-compressed": ("inspect", "FOLDER/every.vq.safetensors"),
    "compress": (
        "compress", f"{_MODULE}:every_method", "--recipe", "FOLDER/recipe.yaml",
        "--out", "FOLDER/compress",
    ),
    "quantize": (
        "quantize", f"{_MODULE}:network", "--data", f"{_MODULE}:pictures", "--out", "FOLDER/gptq",
        "--bits", "3", "--group", "32", "--device", "cpu",
    ),
    "quantize-gptaq-r": (
        "quantize", f"{_MODULE}:network", "--data", f"{_MODULE}:pictures", "--out", "FOLDER/gptaq",
        "--method", "gptaq-r", "--asymmetric", "--clip", "--device", "cpu",
    ),
    "estimate": ("estimate", "FOLDER/linears.vq.safetensors", *_SMALL, "--methods", "int8,int4"),
    "estimate-dram": (
        "estimate", "FOLDER/linears.vq.safetensors", *_SMALL, "--rows", "3", "--methods", "none",
        "--memory", "ddr4-2400", "--set", "clock_mhz=500",
    ),
    "estimate-shapes": ("estimate", make.FILE, "--recipe", "int4"),
    "estimate-workload": (
        "estimate", "minilm-l6:tokens=1", "--recipe", "ssvq:d=8,k=16", "--memory", "lpddr4-3200",
        "--set", "clock_mhz=500",
    ),
    "sweep": (
        "sweep", "FOLDER/linears.vq.safetensors", "--out", "FOLDER/sweep", "--set", "array=8x8",
        "--set", "bus_bits=64", "--set", "d_max=8", "--set", "scale_lanes=4,8", "--rows", "1,4",
        "--workers", "1",
    ),
}  # fmt: skip


def prepare(folder: Path) -> None:
    """Put the files that the commands read into ``folder``."""
    (folder / "recipe.yaml").write_text(models.RECIPE)
    # The one layer whose codebook is not in the file cannot be inspected.
    layers = [layer for layer in make.layers() if layer.geometry.name != "block.rom"]
    write_container(folder / "stored.vq.safetensors", layers, make.kept())
    compressed(folder / "every.vq.safetensors")
    linears(folder / "linears.vq.safetensors")


def document(name: str, folder: Path) -> Any:
    """Run one of the ``COMMANDS`` and return its document, without what the machine decides."""
    arguments = [str(a).replace("FOLDER", str(folder)) for a in COMMANDS[name]]
    path = folder / f"{name}.json"
    run(*arguments, "--json", path)
    text = path.read_text().replace(str(folder), "FOLDER").replace(str(HERE), "GOLDEN")
    return _plain(json.loads(text))


def _plain(value: Any) -> Any:
    """The document with ``MACHINE`` fields empty; that they are there still counts."""
    if isinstance(value, dict):
        return {k: None if k in MACHINE else _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list) else value


def differences(found: Any, want: Any, where: str = "", field: str = "") -> Iterator[str]:
    """Say where two documents differ: in keys and their order, in types, in values."""
    if type(found) is not type(want):
        yield f"{where}: {found!r} in place of {want!r}"
    elif isinstance(want, dict):
        if list(found) != list(want):
            yield f"{where}: keys {list(found)} in place of {list(want)}"
        for key in want.keys() & found.keys():
            yield from differences(found[key], want[key], f"{where}.{key}", key)
    elif isinstance(want, list):
        if len(found) != len(want):
            yield f"{where}: {len(found)} items in place of {len(want)}"
        for i, (one, other) in enumerate(zip(found, want, strict=False)):
            yield from differences(one, other, f"{where}[{i}]", field)
    elif isinstance(want, float):
        near = 1e-5 if field in ARITHMETIC else 1e-12
        if not abs(found - want) <= near * abs(want):
            yield f"{where}: {found!r} in place of {want!r}"
    elif found != want:
        yield f"{where}: {found!r} in place of {want!r}"


# ---- containers ----------------------------------------------------------------------------------


def _save(model: nn.Module, path: Path) -> None:
    """Save a model, and take the version of the tool, which may change, out of the header."""
    vq.save(model, path)
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header, count = re.subn(rb'"tool":"signbook [^"]*"', b'"tool":"golden"', data[8:start])
    assert count == 1
    path.write_bytes(data[:8] + header.rstrip().ljust(start - 8) + data[start:])


def compressed(path: Path) -> None:
    """Compress the model of every method and save it."""
    model = models.every_method()
    vq.compress_(model, vq.Recipe.from_yaml(models.RECIPE), seed=3, progress=False)
    _save(model, path)


def linears(path: Path) -> None:
    """The same for its block alone: what an accelerator runs layer by layer."""
    model = models.every_method().block
    rules = vq.Recipe.from_yaml(models.RECIPE).rules
    inner = {k.removeprefix("block."): v for k, v in rules.items() if k.startswith("block.")}
    vq.compress_(model, vq.Recipe(inner), progress=False)
    _save(model, path)


def rounded(path: Path) -> None:
    """Quantise without calibration and save: int8 and grouped methods by ``rescomp``."""
    model = models.network()
    recipe = vq.Recipe({"0": vq.Int8(), "3": vq.Int3(group=32, zeros=True), "5": vq.Int4()})
    data = [x for x, _ in models.pictures().batches]
    rescomp.quantize_(model, data, recipe, rescomp.RTN())
    _save(model, path)


WRITERS = {"compressed": compressed, "linears": linears, "rounded": rounded}


def container_digests(name: str, folder: Path) -> dict[str, str]:
    """Hashes of a file's header and of the bytes behind it."""
    path = folder / f"{name}.vq.safetensors"
    WRITERS[name](path)
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    return {
        "header_sha256": hashlib.sha256(data[:start]).hexdigest(),
        "data_sha256": hashlib.sha256(data[start:]).hexdigest(),
    }


# ---- Verilog -------------------------------------------------------------------------------------

_ACCELERATOR = rtl.AcceleratorConfig(
    bus_bits=64, rows=8, columns=8, d_max=8, scale_lanes=4,
    input_bytes=1 << 13, output_bytes=1 << 13, accumulators=64,
)  # fmt: skip

INSTANCES: dict[str, rtl.Config] = {
    "streamer": rtl.StreamerConfig(),
    "accelerator": _ACCELERATOR,
    "accelerator-rom": replace(
        _ACCELERATOR, codebook_rom=rtl.rom_text(make.book("verilog", 16, 8))
    ),
    "accelerator-int8": replace(_ACCELERATOR, int8_only=1),
}


def verilog_digest(name: str) -> dict[str, Any]:
    """Hash, lines and top module of an instance's Verilog, which must not know where it is from."""
    source = rtl.emit_verilog(INSTANCES[name])
    assert not re.search(r"\bsrc\s*=|\.py\b", source)
    return {
        "top": rtl.top_of(INSTANCES[name]),
        "lines": source.count("\n"),
        "modules": len(re.findall(r"^module ", source, re.M)),
        "sha256": hashlib.sha256(source.encode()).hexdigest(),
    }
