"""Scalar weights that are trained block by block: moved a little, clipped, and rounded."""
