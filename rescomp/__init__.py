"""Scalar quantisers that codebook methods are compared with: RTN, GPTQ, GPTAQ, ResComp.

Not built yet. They will share the container, the calibration and the accounting of ``vq``.
"""
