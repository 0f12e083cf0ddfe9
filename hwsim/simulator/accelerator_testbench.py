"""Testbench of the accelerator: a host, a memory, and programs between them.

Runs inside the simulator. One coroutine wakes once per cycle, at the rising edge. Values read
there are those of the cycle that ends; values written there are seen in the next cycle.
"""

import dataclasses
import gc
import json
import mmap
import os
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.simtime import get_sim_time
from cocotb.triggers import First, RisingEdge, Timer, ValueChange

from hwsim.memory import IdealMemory, parse_memory
from hwsim.simulator.axi import (
    AxiReadSlave,
    AxiWriteSlave,
    LiteMaster,
    PlayedReadSlave,
    ProtocolError,
)
from hwsim.simulator.pins import reader
from hwsim.simulator.playback import Player
from hwsim.simulator.traffic import Traffic

_CLOCK_STEPS = 2
_RESET_CYCLES = 4
#: Cycles watched after the interrupt: nothing more may be transferred.
_SETTLE_CYCLES = 64
_PROGRESS_CYCLES = 5_000


@cocotb.test()  # type: ignore[untyped-decorator]
async def run_program(dut: Any) -> None:
    """Run the job in the file that ``SIGNBOOK_JOB`` names; write results beside it."""
    gc.freeze()  # modules stay; looking through them again and again takes a tenth of a run
    path = Path(os.environ["SIGNBOOK_JOB"])
    job = json.loads(path.read_text())
    with Path(os.environ["SIGNBOOK_MEMORY"]).open("r+b") as file:
        image = mmap.mmap(file.fileno(), 0)
    system = System(dut, job, image, path.parent / "progress")
    try:
        runs = []
        await system.reset()
        for reset_after in job["resets"]:
            await system.start(*job["runs"][0])
            await system.pass_cycles(reset_after)
            await system.reset()
        for program, layers in job["runs"]:
            runs.append(await system.run(program, layers))
            if runs[-1]["registers"]["STATUS"] >> 8 & 0xFF:
                break  # not OK: the design may wait for a reset
    except ProtocolError as error:
        (path.parent / "error").write_text(str(error))
        raise
    image.flush()
    (path.parent / "result.json").write_text(json.dumps({"runs": runs}))


class System:
    """The design with its memory and its host: ``host`` has its registers on the bus."""

    def __init__(self, dut: Any, job: dict[str, Any], image: mmap.mmap, progress: Path) -> None:
        self._dut, self._job, self._image, self._progress = dut, job, image, progress
        self._edge = RisingEdge(dut.clk)
        self._irq = reader(dut.irq)
        self._events = [
            ValueChange(port)
            for port in (dut.m_axi_arvalid, dut.m_axi_awvalid, dut.m_axi_wvalid, dut.irq)
        ]
        self._moved_at = 0
        self.cycle = 0
        self.host = LiteMaster(dut, self._tick)
        self._connect()
        Clock(dut.clk, _CLOCK_STEPS, unit="step").start()

    def _connect(self) -> None:
        """A memory without anything under way."""
        job = self._job
        memory = self._memory = parse_memory(job["memory"])
        traffic = Traffic(**job["traffic"])
        bus_bits = job["bus_bits"]
        self._reads: AxiReadSlave
        if (
            job["played"]
            and not traffic.r_idle
            # Only this one knows when it is asked for a burst when its beats will come.
            and isinstance(memory, IdealMemory)
            and memory.latency_cycles >= Player.LATENCY_MIN
        ):
            self._reads = PlayedReadSlave(self._dut, self._image, memory, traffic, bus_bits)
        else:
            self._reads = AxiReadSlave(self._dut, self._image, memory, traffic, bus_bits)
        self._writes = AxiWriteSlave(self._dut, self._image, memory, traffic, bus_bits)

    async def reset(self) -> None:
        """Reset the design and forget what the memory was asked for."""
        self._dut.rst.value = 1
        for _ in range(_RESET_CYCLES):
            await self._edge
        self._connect()
        self.host = LiteMaster(self._dut, self._tick)
        await self._edge
        self._dut.rst.value = 0
        await self._edge  # the reset passes a register
        self.cycle = self._moved_at = 0

    async def _tick(self) -> None:
        await self._edge
        self.cycle += 1
        moved = self._reads.step(self.cycle)
        if self._writes.step(self.cycle) or moved:
            self._moved_at = self.cycle
        if self.cycle % _PROGRESS_CYCLES == 0:
            self._progress.write_text(str(self._reads.beats))

    async def _sleep(self) -> None:
        """Let cycles pass in which nothing happens on the bus: a tick ends the first other one.

        A port changes behind a clock edge, at the beginning of the cycle in which that counts.
        """
        before = get_sim_time("step")
        limit = 2 * self._job["idle_limit_cycles"]
        await First(*self._events, Timer(limit, "step"))
        self.cycle += int(get_sim_time("step") - before) // _CLOCK_STEPS

    async def pass_cycles(self, count: int) -> None:
        """Let the design run."""
        for _ in range(count):
            await self._tick()

    async def start(self, program: int, layers: int) -> None:
        """Write the registers, the start last."""
        job = self._job
        for name, value in (
            ("PROGRAM_LOW", program & 0xFFFFFFFF),
            ("PROGRAM_HIGH", program >> 32),
            ("LAYERS", layers),
            ("TIMEOUT", job["timeout_cycles"]),
            ("CONTROL", 0b11),
        ):
            if await self.host.write(job["registers"][name], value):
                raise ProtocolError(f"register {name} must take a write, not refuse it")

    async def run(self, program: int, layers: int) -> dict[str, Any]:
        """One run to its interrupt; what the registers and the memory then say."""
        before = [self._reads.beats, self._reads.bursts, self._writes.beats, self._writes.bursts]
        await self.start(program, layers)
        started = self._moved_at = self.cycle
        spent = self._memory.energy(started)
        limit = self._job["idle_limit_cycles"]
        while not self._irq():
            if self._reads.quiet and self._writes.quiet:
                await self._sleep()
            await self._tick()
            if self.cycle - self._moved_at > limit:
                raise ProtocolError(
                    f"cycle {self.cycle}: run must go on, not stand still for {limit} cycles"
                )
        cycles = self.cycle - started
        energy = self._memory.energy(self.cycle)
        registers = {}
        for name, address in self._job["registers"].items():
            registers[name], response = await self.host.read(address)
            if response:
                raise ProtocolError(f"register {name} must be readable, not refused")
        quiet = self.cycle
        await self.pass_cycles(_SETTLE_CYCLES)
        after = [self._reads.beats, self._reads.bursts, self._writes.beats, self._writes.bursts]
        counts = [b - a for a, b in zip(before, after, strict=True)]
        names = ("beats_read", "read_bursts", "beats_written", "write_bursts")
        return {
            "registers": registers,
            "cycles": cycles,
            "energy": dataclasses.asdict(energy - spent) if energy and spent else None,
            "moved_after": self._moved_at > quiet,
            **dict(zip(names, counts, strict=True)),
        }
