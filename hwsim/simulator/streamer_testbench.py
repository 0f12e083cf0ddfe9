"""Testbench: runs inside the simulator, streams a job's layers and records what comes out.

One coroutine wakes once per cycle, at the rising edge. Values read there are those of the cycle
that ends; values written there are seen in the next cycle, as with a register.
"""

import json
import mmap
import os
import random
from pathlib import Path
from typing import Any, BinaryIO

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

from hwsim.memory import parse_memory
from hwsim.simulator.axi import AxiReadSlave, ProtocolError
from hwsim.simulator.pins import reader, writer
from hwsim.simulator.traffic import Traffic

_RESET_CYCLES = 4
#: Cycles watched after the last report: nothing more may come out.
_SETTLE_CYCLES = 64
_PROGRESS_CYCLES = 5_000


class _Host:
    """Gives descriptors and takes reports."""

    def __init__(self, dut: Any, descriptors: list[int], traffic: Traffic) -> None:
        self._descriptors = descriptors
        self._set_valid, self._set_payload = (
            writer(dut.descriptor_valid),
            writer(dut.descriptor_payload),
        )
        self._ready = reader(dut.descriptor_ready)
        self._report_valid, self._report = reader(dut.report_valid), reader(dut.report_payload)
        self._set_report_ready = writer(dut.report_ready)
        self._traffic = traffic
        self._random = random.Random(traffic.seed + 1)
        self._given = 0
        self._offering = False
        self._taking = False
        self.first_accept_cycle = -1
        self.reports: list[int] = []
        self._set_valid(0)
        self._set_report_ready(0)

    def step(self, cycle: int) -> bool:
        """Take part in one cycle; true if something was handed over."""
        moved = False
        was_offering = self._offering
        if was_offering and self._ready():
            moved, self._offering = True, False
            self._given += 1
            if self.first_accept_cycle < 0:
                self.first_accept_cycle = cycle
        if self._taking and self._report_valid():
            moved = True
            self.reports.append(self._report())
        if not self._offering:
            idle = self._traffic.descriptor_idle
            self._offering = self._given < len(self._descriptors) and (
                not idle or self._random.random() >= idle
            )
            if self._offering:
                self._set_payload(self._descriptors[self._given])
            if self._offering != was_offering:
                self._set_valid(self._offering)
        idle = self._traffic.report_idle
        taking = not idle or self._random.random() >= idle
        if taking != self._taking:
            self._taking = taking
            self._set_report_ready(taking)
        return moved


class _Sink:
    """Takes weights and checks the stream rules on them."""

    def __init__(self, dut: Any, file: BinaryIO, lanes: int, traffic: Traffic) -> None:
        self._valid, self._payload = reader(dut.weights_valid), reader(dut.weights_payload)
        self._set_ready = writer(dut.weights_ready)
        self._file = file
        self._lanes = lanes
        self._traffic = traffic
        self._random = random.Random(traffic.seed + 2)
        self._taking = False
        self._waiting: int | None = None
        self._beats = 0
        self.layer_beats: list[int] = []
        self.last_cycle = -1
        self._set_ready(0)

    def step(self, cycle: int) -> bool:
        """Take part in one cycle; true if a weight beat left."""
        moved = False
        if self._valid():
            if self._taking or self._waiting is None:
                moved = self._take(cycle, self._payload())
        elif self._waiting is not None:
            raise ProtocolError(f"cycle {cycle}: weights_valid must be held until weights_ready")
        taking = self._willing(cycle)
        if taking != self._taking:
            self._taking = taking
            self._set_ready(taking)
        return moved

    def _take(self, cycle: int, payload: int) -> bool:
        if self._waiting not in (None, payload):
            raise ProtocolError(f"cycle {cycle}: weights must be stable until weights_ready")
        if not self._taking:
            self._waiting = payload
            return False
        self._waiting = None
        bits = 8 * self._lanes
        self._file.write((payload & ((1 << bits) - 1)).to_bytes(self._lanes, "little"))
        self._beats += 1
        self.last_cycle = cycle
        if payload >> bits:
            self.layer_beats.append(self._beats)
            self._beats = 0
        return True

    def _willing(self, cycle: int) -> bool:
        idle = self._traffic.weights_idle
        if not idle:
            return True
        if self._traffic.even_weights:
            rate = 1 - idle
            return int((cycle + 1) * rate) > int(cycle * rate)
        return self._random.random() >= idle


@cocotb.test()  # type: ignore[untyped-decorator]
async def run_job(dut: Any) -> None:
    """Run the job in the file that ``SIGNBOOK_JOB`` names; write results beside it."""
    path = Path(os.environ["SIGNBOOK_JOB"])
    job = json.loads(path.read_text())
    with open(job["image"], "rb") as image_file, (path.parent / "weights.bin").open("wb") as out:
        image = mmap.mmap(image_file.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            facts = await _stream(dut, job, image, out, path.parent / "progress")
        except ProtocolError as error:
            (path.parent / "error").write_text(str(error))
            raise
    (path.parent / "result.json").write_text(json.dumps(facts))


async def _stream(
    dut: Any, job: dict[str, Any], image: mmap.mmap, out: BinaryIO, progress: Path
) -> dict[str, Any]:
    traffic = Traffic(**job["traffic"])
    memory = parse_memory(job["memory"])
    slave = AxiReadSlave(dut, image, memory, traffic, job["bus_bits"])
    host = _Host(dut, job["descriptors"], traffic)
    sink = _Sink(dut, out, job["bus_bits"], traffic)
    edge = RisingEdge(dut.clk)
    dut.rst.value = 1
    Clock(dut.clk, 2, unit="step").start()
    for _ in range(_RESET_CYCLES):
        await edge
    dut.rst.value = 0

    wanted = len(job["descriptors"])
    cycle = quiet_since = 0
    while len(host.reports) < wanted or cycle - quiet_since < _SETTLE_CYCLES:
        await edge
        cycle += 1
        moved = slave.step(cycle) | sink.step(cycle) | host.step(cycle)
        if moved:
            quiet_since = cycle
        elif cycle - quiet_since > job["idle_limit_cycles"]:
            raise ProtocolError(
                f"cycle {cycle}: run must go on, not stand still for "
                f"{job['idle_limit_cycles']} cycles with {len(host.reports)} of {wanted} reports"
            )
        if cycle % _PROGRESS_CYCLES == 0:
            progress.write_text(str(slave.beats))
    if len(host.reports) > wanted:
        raise ProtocolError(f"reports must be {wanted}, not {len(host.reports)}")
    return {
        "reports": host.reports,
        "weight_beats": sink.layer_beats,
        "cycles": max(0, sink.last_cycle - host.first_accept_cycle),
        "bus": {
            "read_bytes": slave.beats * job["bus_bits"] // 8,
            "beats": slave.beats,
            "bursts": slave.bursts,
            "first_beat_cycle": slave.first_beat_cycle,
            "last_beat_cycle": slave.last_beat_cycle,
        },
    }
