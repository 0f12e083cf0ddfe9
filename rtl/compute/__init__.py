"""Weights and activations to int8: tiles, multiplier array, sums, outputs.

==========  ==================================================
module      what it is about
==========  ==================================================
config      sizes of array, accumulators and buffers
groups      groups of inputs that can have scales of their own
tile        beats of weights to the registers of the array
walk        which activations each vector is made of
vectors     the activation buffer, and vectors from its words
array       a vector times a tile, every cycle
accumulate  sums of all positions
rescale     sums of groups to the size of their output
requantize  finished sums to int8
engine      these joined
residual    outputs plus a tensor that was there before
outputs     finished words to their places in a buffer
==========  ==================================================
"""
