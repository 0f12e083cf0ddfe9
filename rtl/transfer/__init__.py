"""What moves between memory and the buffers of the array."""
