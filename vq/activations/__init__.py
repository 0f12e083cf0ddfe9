"""Activations of few bits."""
