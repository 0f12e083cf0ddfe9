"""Add up what a task measures, batch by batch; :mod:`signbook.evaluation` lists the metrics.

meter       what all have in common, and what they require of outputs and labels
logits      answers of classifiers, likelihood of texts
divergence  logits of a model against those of its reference
noise       predicted noise
vectors     embeddings
samples     images
"""

from signbook.meters.logits import Classes, Tokens
from signbook.meters.meter import Meter
from signbook.meters.noise import Noise
from signbook.meters.samples import Samples
from signbook.meters.vectors import Vectors, embedding_of
from signbook.tasks import (
    Classification,
    Denoising,
    Embedding,
    Generation,
    LanguageModelling,
    Task,
)
from vq.errors import ConfigError

__all__ = ["Meter", "embedding_of", "meter_for"]


def meter_for(task: Task, *, compare: bool, neighbours: int = 1) -> Meter:
    """The meter of a task.

    Raises
    ------
    ConfigError
        If the task cannot be judged without a reference and there is none to compare with.
    """
    match task:
        case Classification():
            return Classes()
        case LanguageModelling():
            return Tokens()
        case Denoising():
            return Noise()
        case Generation():
            return Samples(task)
        case Embedding() if compare:
            return Vectors(neighbours)
        case Embedding():
            raise ConfigError(
                "embeddings must be compared with a reference, not judged alone; "
                "use --file with --reference or --weights"
            )
    raise ConfigError(f"task must be one of signbook.tasks, not {type(task).__name__}")
