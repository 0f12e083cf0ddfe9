"""Generated hardware under Verilator: builds, testbenches, one simulated run.

===========  ==============================================
module       what it is about
===========  ==============================================
toolchain    the tools, found and checked
verilator    builds a design and runs cocotb in it
accelerator  a program on an accelerator, its books checked
streamer     the same for a weight streamer alone
traffic      how the surroundings behave
axi          memory and host on the bus
playback     read beats from Verilog while Python sleeps
waves        all signals in a file
pins         fast access to ports
===========  ==============================================

``accelerator_testbench`` and ``streamer_testbench`` run inside the simulator.
"""
