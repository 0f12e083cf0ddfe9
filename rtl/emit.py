"""Verilog of an instance, and a manifest that says what it is."""

import hashlib
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

from rtl.config import StreamerConfig
from rtl.streamer import WeightStreamer, streamer_signature
from vq.container import LAYOUT, atomic_file

__all__ = ["TOP", "emit_verilog", "manifest", "write_verilog"]

#: Name of the top module.
TOP = "signbook_streamer"


def _ports(signature: wiring.Signature, interface: Any) -> dict[str, tuple[Value, str]]:
    """Ports by the names that tools expect: ``m_axi_araddr``, ``weights_valid``."""
    ports = {}
    for path, member, value in signature.flatten(interface):
        direction = "input" if member.flow == In else "output"
        signal = value.as_value() if isinstance(value, ValueCastable) else value
        ports["_".join(str(part) for part in path)] = (signal, direction)
    return ports


@lru_cache(maxsize=8)
def emit_verilog(config: StreamerConfig) -> str:
    """Generate the Verilog of one instance.

    The text depends on the configuration and the library versions only, so its hash names a
    build. Takes a few seconds the first time.

    Returns
    -------
    str
        Verilog source; the top module is ``TOP``, clocked by ``clk``, with synchronous reset
        ``rst``, active high.
    """
    design = WeightStreamer(config)
    # None: Amaranth derives a port's direction from what drives it.
    ports = {name: (signal, None) for name, (signal, _) in _ports(design.signature, design).items()}
    return verilog.convert(design, name=TOP, ports=ports, emit_src=False, strip_internal_attrs=True)


def manifest(config: StreamerConfig, source: str) -> dict[str, Any]:
    """Describe an emitted instance: configuration, ports with direction and width, versions."""
    signature = streamer_signature(config)
    return {
        "schema": "signbook.rtl/1",
        "top": TOP,
        "layout": LAYOUT,
        "config": config.to_mapping(),
        "ports": {
            name: {"direction": direction, "bits": len(signal)}
            for name, (signal, direction) in _ports(signature, signature.create()).items()
        },
        "verilog_sha256": hashlib.sha256(source.encode()).hexdigest(),
        "amaranth": amaranth.__version__,
    }


def write_verilog(config: StreamerConfig, path: str | os.PathLike[str]) -> Path:
    """Write an instance's Verilog, and its manifest beside it as ``*.json``.

    Both texts exist before the first file is touched and replace it as a whole, so a failure
    leaves what was there.

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
    for target, text in ((path, source), (path.with_suffix(".json"), facts)):
        with atomic_file(target) as file:
            file.write(text.encode())
    return path
