"""Which layer becomes what, and what that would cost; decided before any work."""
