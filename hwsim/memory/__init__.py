"""Memory models: when each beat of each burst can be delivered, and what that costs.

A model is one event-driven object. The AXI slave of the RTL simulation asks it cycle by cycle; a
cycle model can ask the same object without a simulator and gets the same answers. ``ideal`` has
fixed bandwidth and latency, all others are DRAM with banks and rows, whose scheduler is C, compiled
when it is first used. The process inside a simulator imports this package, so it needs nothing but
the standard library.

============  =================================================================
module        what it is about
============  =================================================================
model         what every memory does
ideal, dram   the two kinds
text          names and settings as text
device        structure, timings, currents; ``checks`` finds what contradicts itself
datasheet     the devices in ``data/``, each value beside its source
ini           files in the syntax of DRAMsim3
mapping       addresses to channels, banks and rows
engine        which command goes next, in C: ``source/dram.c`` and what it includes
energy        what commands cost
============  =================================================================
"""

from hwsim.memory.datasheet import device_names, load_device
from hwsim.memory.device import Control, Device, Rail, Structure, Timing
from hwsim.memory.dram import CLOCK_MHZ, CONTROLLER_LATENCY_NS, Dram
from hwsim.memory.energy import Energy, EnergyTable
from hwsim.memory.engine import Command
from hwsim.memory.ideal import IdealMemory
from hwsim.memory.ini import read_ini
from hwsim.memory.model import MemoryModel
from hwsim.memory.text import absolute_memory, parse_memory

__all__ = [
    "CLOCK_MHZ",
    "CONTROLLER_LATENCY_NS",
    "Command",
    "Control",
    "Device",
    "Dram",
    "Energy",
    "EnergyTable",
    "IdealMemory",
    "MemoryModel",
    "Rail",
    "Structure",
    "Timing",
    "absolute_memory",
    "device_names",
    "load_device",
    "parse_memory",
    "read_ini",
]
