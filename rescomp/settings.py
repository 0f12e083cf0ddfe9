"""What every method is given besides its layer."""

from dataclasses import dataclass

import torch

from vq.errors import ConfigError
from vq.formats.clip import Clip

__all__ = ["DAMPING_MAX", "Settings"]

#: Greatest damping that is tried, in units of the mean diagonal.
DAMPING_MAX = 1.0


@dataclass(frozen=True)
class Settings:
    """What all methods share.

    Attributes
    ----------
    damping : float
        Added to the diagonal of the Hessian, in units of its mean. Where that does not suffice
        for a finite result, ten times as much, and so on up to 1; the report says which.
    activation_order : bool
        Round columns in the order of falling input energy. Groups stay where they are, so that
        the stored layer is an ordinary one.
    dynamic_groups : bool
        Fit a group's grid to its columns when their turn comes, not to the original weight.
        Needs ``activation_order=False``.
    clip : Clip or None
        Search for narrower ranges.
    dtype : torch.dtype
        float32 or float64, of all work.
    leaf : int
        Columns that the solver works off one by one; matters to speed only.
    org_block : int
        Columns of a block of the methods' mode "org", whose results it decides.
    measure : bool
        Report the errors of the outputs; costs two products with the Hessian.
    """

    damping: float = 0.01
    activation_order: bool = True
    dynamic_groups: bool = False
    clip: Clip | None = None
    dtype: torch.dtype = torch.float32
    leaf: int = 32
    org_block: int = 128
    measure: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.damping <= DAMPING_MAX:
            raise ConfigError(f"damping must be 0 to {DAMPING_MAX:g}, not {self.damping!r}")
        if self.dtype not in (torch.float32, torch.float64):
            raise ConfigError(f"dtype must be float32 or float64, not {self.dtype}")
        for field in ("leaf", "org_block"):
            if getattr(self, field) < 1:
                raise ConfigError(f"{field} must be positive, not {getattr(self, field)!r}")
        if self.dynamic_groups and self.activation_order:
            raise ConfigError(
                "activation_order must be False with dynamic groups, not True: their groups would "
                "be scattered over the inputs, which no container stores"
            )
