"""From beats to int8 weights, a bus width of them per cycle.

=========  ==================================================
module     what it is about
=========  ==================================================
router     which part of a stream each beat belongs to
loader     beats of a codebook to rows of its RAM
planes     bit-planes to indices
codebook   indices to codewords, all lanes in one cycle
parity     stored signs to all signs
signs      magnitudes and signs to weights
zeros      beats of group zeros to rows of them
codes      grouped integers: code and zero to weight
gather     whole beats of weights
sequencer  when each output beat can start, and why it cannot
decoder    all of them joined; ``plain`` is int8 alone
weights    layer after layer: what to fetch, and the decoder
counters   the streamer's cycles, by layer and cause
=========  ==================================================
"""
