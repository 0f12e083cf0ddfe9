"""Every error that Signbook raises on purpose.

::

    SignbookError
    ├── ConfigError            a setting, name or argument is impossible          (ValueError)
    │   ├── RecipeError        a recipe does not fit itself or the model
    │   ├── ResumeError        a checkpoint that does not belong to this run
    │   └── UnsupportedLayerError   a layer that no format here can store
    ├── WeightError            weights that cannot be compressed (NaN, infinite)  (ValueError)
    ├── ContainerError         a file that is not a valid container               (ValueError)
    ├── OutputError            a place that cannot be written                     (OSError)
    ├── SimulationError        a missing tool, a failed build, a failed run
    └── TrainingError          a training whose loss or weights stop being finite

Messages have one form: subject, requirement, what was given, what to do.
The command line prints them as one line and exits with status 1.
"""

from collections.abc import Iterable

__all__ = [
    "ConfigError",
    "ContainerError",
    "OutputError",
    "RecipeError",
    "ResumeError",
    "SignbookError",
    "SimulationError",
    "TrainingError",
    "UnsupportedLayerError",
    "WeightError",
    "bulleted",
]


class SignbookError(Exception):
    """Root of the tree; catch it to catch every mistake that Signbook names."""


class ConfigError(SignbookError, ValueError):
    """A setting, a name or an argument that cannot work."""


class RecipeError(ConfigError):
    """A recipe that contradicts itself or the model it is applied to."""


class ResumeError(ConfigError):
    """A checkpoint that belongs to another run, or that nobody can read."""


class UnsupportedLayerError(ConfigError):
    """A recipe selects a layer that no format can store."""


class WeightError(SignbookError, ValueError):
    """Weights that cannot be compressed, such as NaN or infinite values."""


class ContainerError(SignbookError, ValueError):
    """A damaged, hostile or unknown container file."""


class OutputError(SignbookError, OSError):
    """A file or folder that cannot be written."""


class SimulationError(SignbookError):
    """A simulator that is missing, does not build, or does not finish."""


class TrainingError(SignbookError):
    """A training that diverged; the model is back in its last good state."""


def bulleted(subject: str, problems: Iterable[str]) -> str:
    """Join problems under one heading, so that a user sees all of them at once."""
    listed = list(problems)
    noun = "problem" if len(listed) == 1 else "problems"
    return f"{subject} has {len(listed)} {noun}:" + "".join(f"\n- {p}" for p in listed)
