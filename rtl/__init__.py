"""Hardware: weight streamers that decode ``vqstream/1``, and accelerators around them.

One component per file, in rooms; the first one serves the next five, the last builds:

========  ===========================================
room      what is in it
========  ===========================================
bus       AXI channels, bursts, words of other widths
decode    beats to int8 weights
compute   weights and activations to int8 outputs
vector    what transformers need besides, row by row
control   registers, descriptors, checks, accounts
transfer  activations, parameters, outputs, records
build     components to Verilog, areas and clocks
========  ===========================================

Two designs join them: :mod:`rtl.streamer` gives int8 weights to hardware that exists,
:mod:`rtl.accelerator` runs whole networks. :mod:`rtl.descriptor` and :mod:`rtl.program` are what
they read in memory, and :mod:`rtl.checker` refuses what an instance cannot run. What it can,
:mod:`rtl.config` and :mod:`rtl.accelerator_config` say, of checked :mod:`rtl.settings`;
:mod:`rtl.rom` has the text of a codebook that lies in the hardware.
The names below are imported when they are first used: settings need no hardware.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rtl.accelerator_config import AcceleratorConfig
    from rtl.build.emit import Config, emit_verilog, manifest, top_of, write_verilog
    from rtl.config import StreamerConfig
    from rtl.descriptor import (
        DESCRIPTOR,
        REPORT,
        STALL_CAUSES,
        CodebookMode,
        Method,
        Status,
    )
    from rtl.program import RUN_CAUSES
    from rtl.rom import rom_text
    from rtl.streamer import WeightStreamer
    from vq.container.rom import read_rom

_HOME = {
    "DESCRIPTOR": "rtl.descriptor",
    "REPORT": "rtl.descriptor",
    "RUN_CAUSES": "rtl.program",
    "STALL_CAUSES": "rtl.descriptor",
    "AcceleratorConfig": "rtl.accelerator_config",
    "CodebookMode": "rtl.descriptor",
    "Config": "rtl.build.emit",
    "Method": "rtl.descriptor",
    "Status": "rtl.descriptor",
    "StreamerConfig": "rtl.config",
    "WeightStreamer": "rtl.streamer",
    "emit_verilog": "rtl.build.emit",
    "manifest": "rtl.build.emit",
    "read_rom": "vq.container.rom",
    "rom_text": "rtl.rom",
    "top_of": "rtl.build.emit",
    "write_verilog": "rtl.build.emit",
}

__all__ = [
    "DESCRIPTOR",
    "REPORT",
    "RUN_CAUSES",
    "STALL_CAUSES",
    "AcceleratorConfig",
    "CodebookMode",
    "Config",
    "Method",
    "Status",
    "StreamerConfig",
    "WeightStreamer",
    "emit_verilog",
    "manifest",
    "read_rom",
    "rom_text",
    "top_of",
    "write_verilog",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'rtl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
