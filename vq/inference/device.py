"""The device that a name stands for, if this machine has it."""

import torch

from vq.errors import ConfigError

__all__ = ["choose_device"]


def choose_device(name: str | torch.device) -> torch.device:
    """The device of a name; "auto" is CUDA where there is any, else the CPU.

    Raises
    ------
    ConfigError
        If there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # "meta" is none: nothing is computed there
    except (RuntimeError, AssertionError, NotImplementedError, ModuleNotFoundError) as error:
        raise ConfigError(f"device must be one that this machine has, not {str(name)!r}") from error
    return device
