"""Tests of signbook.plots."""
