"""Testbench with an independent memory: cocotbext-axi's AXI slave instead of ours."""

import json
import os
from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiBus, AxiRam

from hwsim.simulator.axi import LiteMaster
from rtl.control.registers import register_map


@cocotb.test()
async def run_program(dut):
    """Run the job once; write the memory and the status."""
    path = Path(os.environ["SIGNBOOK_JOB"])
    job = json.loads(path.read_text())
    image = Path(job["image"]).read_bytes()
    edge = RisingEdge(dut.clk)
    dut.rst.value = 1
    Clock(dut.clk, 2, unit="step").start()
    ram = AxiRam(AxiBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, size=len(image))
    ram.write(0, image)
    for channel in (ram.write_if.b_channel, ram.read_if.r_channel):
        channel.set_pause_generator(bool(i % 3) for i in range(1 << 30))
    host, addresses = LiteMaster(dut, lambda: edge), register_map()
    for _ in range(8):
        await edge
    dut.rst.value = 0
    for _ in range(4):
        await edge
    for name, value in (
        ("PROGRAM_LOW", job["program"]),
        ("LAYERS", job["layers"]),
        ("CONTROL", 0b11),
    ):
        assert await host.write(addresses[name], value) == 0
    while not dut.irq.value:
        await edge
    status, _ = await host.read(addresses["STATUS"])
    (path.parent / "image.bin").write_bytes(ram.read(0, len(image)))
    (path.parent / "result.json").write_text(json.dumps({"status": status}))
