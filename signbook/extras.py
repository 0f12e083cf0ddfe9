"""Packages that only some commands need; each comes with an extra of the installation."""

import importlib
import re
from typing import Any

from vq.errors import ConfigError

__all__ = ["require"]


def require(module: str, *, extra: str, purpose: str) -> Any:
    """Import an optional module.

    Parameters
    ----------
    module : str
        Name to import, dots allowed.
    extra : str
        The extra of this package that installs it.
    purpose : str
        What needs it, such as "reading a Keras file".

    Raises
    ------
    ConfigError
        If it is missing or does not load, with the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if not _is_missing(error, module):
            raise ConfigError(_broken(module, purpose, error)) from error
    except (RuntimeError, OSError) as error:  # a binary that was built for another torch
        raise ConfigError(_broken(module, purpose, error)) from error
    raise ConfigError(
        f"{purpose}: package {module.partition('.')[0]!r} must be installed, not absent; "
        f"run: pip install 'signbook[{extra}]'"
    )


def _broken(module: str, purpose: str, error: Exception) -> str:
    reason = re.sub(r"\s+", " ", str(error))
    return (
        f"{purpose}: package {module.partition('.')[0]!r} must load, but {reason}; "
        "install it and what it needs in versions that match each other and torch"
    )


def _is_missing(error: ImportError, module: str) -> bool:
    return isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]
