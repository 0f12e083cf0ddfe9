"""Training of compressed models."""
