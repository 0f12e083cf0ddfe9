"""What moves between memory and the array beside weights.

==========  ===============================================
module      what it is about
==========  ===============================================
load        activations and residuals, ahead of their layer
parameters  numbers of the requantiser, in the order of use
store       outputs to memory, and a record behind them
==========  ===============================================
"""
