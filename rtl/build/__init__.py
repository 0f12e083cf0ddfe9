"""From components to Verilog, areas and clocks.

=========  ===============================================
module     what it is about
=========  ===============================================
emit       Verilog of an instance, and all that goes with it
core       the description that FuseSoC reads
synthesis  cells and clock by open tools
report     area by block, the clock, what the decoder adds
liberty    libraries of standard cells
cells      the same report for one of them
=========  ===============================================
"""
