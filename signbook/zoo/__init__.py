"""Architectures and data sets that the demo, the benches and the examples use."""
