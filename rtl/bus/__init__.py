"""The bus: AXI channels, bursts, and words of other widths. Every other room stands on it.

=======  ==============================================
module   what it is about
=======  ==============================================
axi      AXI4 and AXI4-Lite as signatures
queue    a FIFO between two streams
gearbox  words of one width to words of another
channel  regions of memory to bursts, beats to a buffer
dma      several channels on one read port
write    beats to a region of memory
pieces   regions at regular distances
=======  ==============================================
"""
