"""Tests of signbook.reporting."""
