"""What holds where nobody says otherwise: apart, so that a command line can say it in no time."""

__all__ = ["DEFAULT_MEMORY"]

#: Memory model, see :func:`hwsim.memory.parse_memory`.
DEFAULT_MEMORY = "ideal:bytes_per_cycle=16,latency=20"
