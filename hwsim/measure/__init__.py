"""What a file or a workload costs, by the RTL or by the cycle model.

==========  ==================================================================
module      what it is about
==========  ==================================================================
document    what a measurement says; ``checked`` has the types of its fields
counts      what was counted, by whichever engine, as a run of it
baselines   the same layers in int8, int4, int3, int2
file        a file and its baselines, whatever runs them
work        what a file is run with, and what must come out
simulate    a file in RTL
compare     a prediction beside what the RTL counted
estimate    a file by the cycle model
turns       several files on one instance, one after another, by either
workload    a network without a file by the cycle model
==========  ==================================================================
"""
