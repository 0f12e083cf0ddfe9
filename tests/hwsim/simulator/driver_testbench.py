"""Testbench whose host is compiled C: the driver's accesses become those of the bus."""

import ctypes
import json
import mmap
import os
from pathlib import Path

import cocotb
from cocotb.task import bridge, resume

from hwsim.simulator.accelerator_testbench import System

#: Cycles between two looks at STATUS.
_PAUSE_CYCLES = 16
_READ = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_uint64)
_WRITE = ctypes.CFUNCTYPE(None, ctypes.c_uint64, ctypes.c_uint32)
_PAUSE = ctypes.CFUNCTYPE(None)


@cocotb.test()
async def run_firmware(dut):
    """Run ``firmware`` of the library in the job; write what it returns and which accesses it made.

    It runs in a thread of its own, in no simulated time but that of its accesses.
    """
    path = Path(os.environ["SIGNBOOK_JOB"])
    job = json.loads(path.read_text())
    with Path(os.environ["SIGNBOOK_MEMORY"]).open("r+b") as file:
        image = mmap.mmap(file.fileno(), 0)
    system = System(dut, job, image, path.parent / "progress")
    await system.reset()
    accesses = []

    @resume
    async def read(address):
        value, response = await system.host.read(address - job["base"])
        accesses.append(["read", address, value, response])
        return value

    @resume
    async def write(address, value):
        response = await system.host.write(address - job["base"], value)
        accesses.append(["write", address, value, response])

    @resume
    async def pause():
        await system.pass_cycles(_PAUSE_CYCLES)

    library = ctypes.CDLL(job["library"])
    calls = {"bus_read": _READ(read), "bus_write": _WRITE(write), "bus_pause": _PAUSE(pause)}
    for name, call in calls.items():
        target = ctypes.c_void_p.in_dll(library, name)
        target.value = ctypes.cast(call, ctypes.c_void_p).value
    word, pointer = ctypes.c_uint64, ctypes.c_void_p
    library.firmware.argtypes = [word, pointer, word, word, word, pointer]
    memory = ctypes.addressof(ctypes.c_char.from_buffer(image))
    counters = (ctypes.c_uint32 * job["counters"])()

    @bridge
    def firmware():
        return library.firmware(job["base"], memory, *job["program"], ctypes.addressof(counters))

    status = await firmware()
    facts = {"status": status, "counters": list(counters), "accesses": accesses}
    (path.parent / "result.json").write_text(json.dumps(facts))
