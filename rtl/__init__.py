"""Hardware: a generator for weight streamers that decode ``vqstream/1`` from memory.

One component per file, from the bus inwards: :mod:`rtl.bus.dma` with its two
:mod:`rtl.bus.channel`,
the parts of :mod:`rtl.decode`, joined in :mod:`rtl.decode.decoder` (:mod:`rtl.decode.plain` for
int8 alone);
:mod:`rtl.checker` and :mod:`rtl.counters` beside them, all in :mod:`rtl.streamer`.
"""

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
from rtl.rom import read_rom, rom_text
from rtl.streamer import WeightStreamer

__all__ = [
    "DESCRIPTOR",
    "REPORT",
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
