"""Control half of the accelerator: registers, descriptors, accounting."""
