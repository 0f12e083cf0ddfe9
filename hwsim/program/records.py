"""What the accelerator writes behind a program: one record for each descriptor."""

from dataclasses import dataclass

__all__ = ["LayerRecord"]


@dataclass(frozen=True)
class LayerRecord:
    """What the accelerator wrote about one descriptor."""

    cycles: int
    busy_cycles: int
    stall_cycles: dict[str, int]
