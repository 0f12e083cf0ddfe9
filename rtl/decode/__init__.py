"""From beats to int8 weights."""
