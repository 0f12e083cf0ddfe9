"""Compute half of the accelerator: weight tiles, multiplier array, accumulators."""
