"""The vector unit: what a transformer needs beside products of matrices, row by row.

========  =======================================================
module    what it is about
========  =======================================================
config    lanes and the longest row
layer     what the unit is told of an operation; its streams
row       rows that come, while those before them are mapped
walk      beats of rows, and lanes that count
reduce    greatest value, sum and sum of squares of a row
serial    division and square root, a bit per cycle
scalar    from these to the numbers that map a row
rounds    each operation as rounds through the lanes
operands  what a lane multiplies in each round
lane      multipliers, adder and shifter of one value
lanes     beats through them as often as it takes
table     functions by 257 entries
channels  numbers of channels, and sums of columns
tally     sums of what rows have been mapped to
words     words of memory to beats, and back
sequence  which beat goes to the lanes, and when
unit      these joined
job       where rows lie and go
engine    the unit with memory on all sides
========  =======================================================
"""
