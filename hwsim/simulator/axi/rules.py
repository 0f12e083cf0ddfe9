"""What breaks when a design breaks a rule."""

__all__ = ["ProtocolError"]


class ProtocolError(AssertionError):
    """The design broke a rule of AXI4 or of ready/valid streams."""
