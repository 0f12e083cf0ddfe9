"""From packed bytes to weights, in torch."""
