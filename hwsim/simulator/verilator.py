"""The one place that builds designs with Verilator and runs cocotb in them.

If ``$SIGNBOOK_COVERAGE`` names a folder, designs are built with counters of executed lines, and
every simulation leaves its counts there, as ``BUILD-*.dat``.
"""

import hashlib
import json
import logging
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwsim.simulator.playback import DATA_SOURCE, PLAYER_TOP, player_verilog
from hwsim.simulator.streamer import Job, Result
from hwsim.simulator.toolchain import Toolchain, find_toolchain, require_plain
from hwsim.simulator.waves import FLAGS as WAVE_FLAGS
from hwsim.simulator.waves import LIBRARIES, WRITER_GAVE_UP, Waves, readable, waves_at
from rtl import (
    REPORT,
    AcceleratorConfig,
    Config,
    StreamerConfig,
    emit_verilog,
    manifest,
    top_of,
)
from vq.container import SimulationError
from vq.native import cached, run_tool, scratch_folder
from vq.native.tool import last_lines

__all__ = ["MEMORY_FILE", "Finished", "build", "lint", "run", "simulate_job"]

_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.1
#: What a testbench reads and writes, beside its job.
MEMORY_FILE = "memory.bin"
#: Only the ports of the top are public: Verilator may optimise all other signals away.
_PUBLIC = 'public_flat_rw -module "{top}" -var "{ports}"\n'
_PLAYER_PORTS = ("clk", "rst", "irq", "m_axi_*", "s_axi_*", "play_*")
_FLAGS = (
    "-cc", "--exe", "--vpi", "--prefix", "Vtop",
    "-O3", "--x-assign", "fast", "--x-initial", "fast", "--no-timing", "-Wno-lint", "-Wno-style",
)  # fmt: skip


def build(config: Config, *, waves: bool = False) -> Path:
    """Build an instance, or find it already built; with ``waves``, one that can write them.

    A build is named by a hash of its Verilog, flags and tool versions, and appears in the cache as
    a whole. Processes that want the same one at the same time wait for one of them.

    Returns
    -------
    Path
        The simulator program.

    Raises
    ------
    SimulationError
        If a tool is missing or the build fails.
    OutputError
        If the cache folder cannot be written.
    """
    tools = find_toolchain()
    files = _sources(config, waves)
    flags, beside = _flags(waves), LIBRARIES if waves else {}
    parts = [
        *files,
        *files.values(),
        *flags,
        *beside.values(),
        *tools.compiler,
        tools.versions,
        str(tools.cocotb_library_dir),
    ]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]
    top = _top(config)

    def make(folder: Path) -> None:
        _log.info("building %s (%d-bit bus)", top_of(config), config.bus_bits)
        _compile(tools, top, files, beside, flags, folder)

    return cached(f"{top_of(config)}-{key}", make) / top


def _top(config: Config) -> str:
    """Name of the simulated top: an accelerator has a player of read bursts beside it."""
    return top_of(config) if isinstance(config, StreamerConfig) else PLAYER_TOP


def _sources(config: Config, waves: bool) -> dict[str, str]:
    """Files of a build by name, in the order in which Verilator takes them."""
    files: dict[str, str] = {}
    ports: tuple[str, ...] = ("*",)
    design = emit_verilog(config)
    if isinstance(config, AcceleratorConfig):
        facts = manifest(config, design)
        player = player_verilog(facts["top"], facts["ports"], config.bus_bits)
        files = {"data.cpp": DATA_SOURCE, "player.sv": player}
        ports = _PLAYER_PORTS
    public = "".join(_PUBLIC.format(top=_top(config), ports=port) for port in ports)
    files["ports.vlt"] = f"`verilator_config\n{public}"
    return {**files, f"{top_of(config)}.v": readable(design) if waves else design}


def _coverage_folder() -> Path | None:
    folder = os.environ.get("SIGNBOOK_COVERAGE")
    return Path(folder) if folder else None


def _flags(waves: bool) -> tuple[str, ...]:
    coverage = () if _coverage_folder() is None else ("--coverage-line",)
    return (*_FLAGS, *(WAVE_FLAGS if waves else ()), *coverage)


def _compile(
    tools: Toolchain,
    top: str,
    files: dict[str, str],
    beside: dict[str, str],
    flags: tuple[str, ...],
    made: Path,
) -> None:
    """Build in a temporary folder and put the program into ``made``."""
    with scratch_folder() as folder:
        require_plain(folder.parent, "set TMPDIR to such a folder, only for builds")
        for file, text in (beside | files).items():
            (folder / file).write_text(text)
        libraries = tools.cocotb_library_dir
        link = f"-L. -Wl,-rpath,{libraries} -L{libraries} -lcocotbvpi_verilator"
        _tool(
            tools,
            ["verilator", *flags, "--top-module", top, "-o", top, "-Mdir", ".", "-LDFLAGS", link,
             str(tools.cocotb_main), *files],
            folder,
        )  # fmt: skip
        _add_runtime(tools, beside, flags, folder)
        _make(tools, folder, "Vtop.mk")
        shutil.move(folder / top, made / top)


def _add_runtime(
    tools: Toolchain, beside: dict[str, str], flags: tuple[str, ...], folder: Path
) -> None:
    """Put Verilator's own objects beside a design: they are the same in each, and compiled once."""
    parts = [*flags, *beside.values(), *tools.compiler, tools.versions, str(tools.verilator_root)]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]

    def make(made: Path) -> None:
        (folder / "runtime.mk").write_text("include Vtop.mk\nruntime: $(VK_GLOBAL_OBJS)\n")
        _make(tools, folder, "runtime.mk", "runtime")
        for file in folder.glob("verilated*.o"):
            shutil.copy(file, made)

    for file in cached(f"runtime-{key}", make).glob("*.o"):
        shutil.copy(file, folder)


def _make(tools: Toolchain, folder: Path, *arguments: str) -> None:
    jobs = str(min(4, os.cpu_count() or 1))
    _tool(tools, ["make", "-j", jobs, *tools.compiler, "-f", *arguments], folder)


def _tool(tools: Toolchain, command: list[str], folder: Path) -> str:
    """Run one tool to its end and return what it printed."""
    return run_tool(
        command,
        folder,
        name=command[0],
        remedy="docs/hardware-checks.md says what simulations need",
        environment=tools.build_environment(),
    )


def lint(config: Config, waivers: Path) -> None:
    """Check an instance with ``verilator --lint-only -Wall`` and a file of waivers.

    Raises
    ------
    SimulationError
        If there is any warning that the file does not waive.
    """
    with scratch_folder() as folder:
        top = top_of(config)
        (folder / f"{top}.v").write_text(emit_verilog(config))
        command = ["verilator", "--lint-only", "-Wall", "--top-module", top]
        _tool(find_toolchain(), [*command, str(waivers.resolve()), f"{top}.v"], folder)


def run(
    config: StreamerConfig, job: Job, *, progress: Callable[[int], None] | None = None
) -> Result:
    """Simulate one job.

    Parameters
    ----------
    config : StreamerConfig
        The instance; it is built if needed.
    job : Job
    progress : callable, optional
        Called from time to time with the number of data beats so far.

    Raises
    ------
    SimulationError
        If the run breaks a protocol rule, stands still, or does not end properly. The message
        ends with the last lines of the simulator's log.
    """
    with simulate_job(
        config, "hwsim.simulator.streamer_testbench", job.to_json(config.bus_bits), progress
    ) as done:
        packed = json.loads((done.folder / "result.json").read_text())["reports"]
        reports = [unpack_report(report) for report in packed]
        return Result.load(done.folder, reports, config.bus_bits, done.wall_seconds)


@dataclass(frozen=True)
class Finished:
    """A simulation that came to its end: what its testbench wrote, and how long it took."""

    folder: Path
    wall_seconds: float


@contextmanager
def simulate_job(
    config: Config,
    testbench: str,
    job: str,
    progress: Callable[[int], None] | None,
    memory: bytes | bytearray = b"",
    waves: Path | None = None,
) -> Iterator[Finished]:
    """Run a testbench module with a job's text; its folder is there inside the context.

    ``memory`` is in the file ``MEMORY_FILE`` there, for the testbench to read and write. It writes
    ``result.json`` when it is content, ``error`` when the design broke a rule, and ``progress``, a
    number, from time to time. ``waves`` get all signals in FST, also of a run that fails.
    """
    program = build(config, waves=waves is not None)
    tools = find_toolchain()
    drawn = nullcontext() if waves is None else waves_at(waves)
    with scratch_folder() as folder, drawn as kept:
        (folder / "job.json").write_text(job)
        (folder / MEMORY_FILE).write_bytes(memory)
        environment = tools.run_environment(_top(config), testbench, folder / "results.xml")
        environment["SIGNBOOK_JOB"] = str(folder / "job.json")
        environment["SIGNBOOK_MEMORY"] = str(folder / MEMORY_FILE)
        start = time.monotonic()
        command = [str(program), *(("--trace", "--trace-file", str(kept.path)) if kept else ())]
        status = _supervise(command, environment, folder, progress)
        seconds = time.monotonic() - start
        _keep_coverage(folder / "coverage.dat", program.parent.name)
        if kept is not None:
            _keep_waves(kept, folder)
        if (folder / "error").exists():
            raise SimulationError(f"simulation: {(folder / 'error').read_text()}")
        if status != 0 or not (folder / "result.json").exists():
            log = (folder / "log").read_text(errors="replace")
            raise SimulationError(
                f"simulation must end properly, not with status {status}:\n{last_lines(log)}"
            )
        yield Finished(folder, seconds)


def _keep_coverage(counts: Path, build_name: str) -> None:
    target = _coverage_folder()
    if target is not None and counts.exists():
        shutil.copy(counts, target / f"{build_name}-{uuid.uuid4().hex}.dat")


def _keep_waves(waves: Waves, folder: Path) -> None:
    """Keep waves that are whole, whatever became of the run.

    They must be if its testbench was content, or if it is their writer that broke off.
    """
    gave_up = WRITER_GAVE_UP in (folder / "log").read_text(errors="replace")
    if waves.whole or gave_up or (folder / "result.json").exists():
        waves.keep()


def _supervise(
    command: list[str],
    environment: dict[str, str],
    folder: Path,
    progress: Callable[[int], None] | None,
) -> int:
    """Run the program to its end; never leave it behind."""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            while True:
                try:
                    return process.wait(_POLL_SECONDS)
                except subprocess.TimeoutExpired:
                    text = folder / "progress"
                    if progress is not None and text.exists():
                        # It is empty for a moment whenever the simulator writes it anew.
                        if beats := text.read_text():
                            progress(int(beats))
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def unpack_report(packed: int) -> dict[str, Any]:
    """Fields of a layer report by name; the status as its name."""
    report = REPORT.from_bits(packed)
    fields = {name: getattr(report, name) for name, _ in REPORT if name != "reserved"}
    return {**fields, "status": fields["status"].name}
