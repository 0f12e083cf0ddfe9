"""A training run as scalars that TensorBoard shows while it runs."""

import importlib
import os
from collections.abc import Mapping

from vq.errors import ConfigError, OutputError

__all__ = ["Scalars"]


class Scalars:
    """Event files in a folder: ``loss``, and ``RULE/NUMBER`` for what every rule tells.

    Parameters
    ----------
    folder : path
        Made if it does not exist.
    step : int
        Where the run continues; what is there of later steps is no longer shown.

    Raises
    ------
    ConfigError
        If TensorBoard is not installed.
    OutputError
        If the folder cannot be written.
    """

    def __init__(self, folder: str | os.PathLike[str], step: int) -> None:
        try:
            tensorboard = importlib.import_module("torch.utils.tensorboard")
        except ImportError as error:
            raise ConfigError(
                "scalars for TensorBoard: package 'tensorboard' must be installed, not absent; "
                "run: pip install 'signbook[tensorboard]'"
            ) from error
        try:
            self._writer = tensorboard.SummaryWriter(os.fspath(folder), purge_step=step + 1)
        except OSError as error:
            raise OutputError(
                f"{folder}: tensorboard must be a folder that can be written "
                f"({error.strerror or error})"
            ) from error

    def write(self, step: int, loss: float) -> None:
        """Add the loss of the step that is now complete."""
        self._writer.add_scalar("loss", loss, step)

    def write_rules(self, step: int, told: Mapping[str, Mapping[str, float]]) -> None:
        """Add what the rules tell, by their names."""
        for rule, numbers in told.items():
            for name, number in numbers.items():
                self._writer.add_scalar(f"{rule}/{name}", number, step)

    def close(self) -> None:
        """Finish the files."""
        self._writer.close()
