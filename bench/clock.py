"""Clocks of the hardware on an ECP5, each the median of three placements.

Device and flow are those of ``signbook rtl --report``: an ECP5-5G 85F of speed grade 8, yosys and
nextpnr, multipliers without DSP. ``core-8x8`` is the whole accelerator that it places, 8x8
multipliers on a 64-bit bus, ``core-8x8-int8`` the same without codebooks, ``decoder`` the decoder
of the first between registers. ``mhz`` is the median over the seeds, which are the placer's,
``placed_mhz`` the mean with its standard error. A core takes about half an hour per placement; each
one is kept, for the very Verilog that was placed.

--quick: ``core-8x8`` alone.
"""

import hashlib
from dataclasses import replace
from functools import partial

from harness import Bench

from rtl import emit_verilog, top_of
from rtl.build.report import CORE, registered_decoder
from rtl.build.synthesis import DEVICE, clock_of, tool_versions
from vq.errors import ConfigError, SimulationError

CORES = {"core-8x8": CORE, "core-8x8-int8": replace(CORE, int8_only=1)}
WORKS = (*CORES, "decoder")
ARM = "ecp5"


def design(work: str) -> tuple[str, str]:
    """Verilog of a work, and the name of its top module."""
    if work in CORES:
        return emit_verilog(CORES[work]), top_of(CORES[work])
    return registered_decoder(CORE.streamer)


def placed(text: str, top: str, seed: int) -> dict[str, float]:
    """One placement; the placer's seeds begin at 1, which is that of the report."""
    return {"placed_mhz": clock_of(text, top, seed=seed + 1)}


def main() -> None:
    """Place every work once per seed."""
    bench = Bench("clock", str(__doc__).split("\n\n")[0], seeds=3, works=WORKS)
    try:
        tool_versions()
    except SimulationError as error:
        raise ConfigError(str(error)) from error
    for work in bench.works[:1] if bench.quick else bench.works:
        text, top = design(work)
        setting = hashlib.sha256(text.encode()).hexdigest()[:12]
        for seed in bench.seeds:
            bench.measure(work, ARM, seed, partial(placed, text, top, seed), setting=setting)
        bench.median(work, ARM, "placed_mhz", "mhz")
    bench.finish(device=" ".join(DEVICE))


if __name__ == "__main__":
    main()
