"""What a stored weight is: codebook or scalar, its settings and its module."""
