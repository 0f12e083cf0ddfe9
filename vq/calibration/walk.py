"""The walk through a model: every stage is worked on before the next one runs."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from vq.calibration.stages import Stage
from vq.calibration.streams import Streams
from vq.distributed import together

__all__ = ["Store", "Work", "walk"]


class Work(Protocol):
    """What is done to each stage.

    A worker runs the present stage by the streams that it shares with the walk, as often as it
    likes: with gradients, with hooks, or on into the blocks behind. It reduces over processes what
    it learns from batches, for each process has its own.
    """

    def at(self, stage: Stage) -> AbstractContextManager[Any]:
        """Context of a stage; left when both models are past it."""

    def do(self, stage: Stage) -> Mapping[str, Any]:
        """Change the layers of a stage; return what :meth:`use` needs: tensors and plain data."""

    def use(self, stage: Stage, state: Mapping[str, Any]) -> None:
        """Change the layers of a stage as an earlier run did."""


class Store(Protocol):
    """Where finished stages are kept by their numbers."""

    def load(self, stage: int) -> Mapping[str, Any] | None:
        """State of a stage, or None."""

    def save(self, stage: int, state: Mapping[str, Any]) -> None:
        """Keep the state of a stage."""


def walk(
    stages: Sequence[Stage], work: Work, streams: Streams | None, store: Store | None = None
) -> None:
    """Work on every stage that has layers, and move the streams on to the next.

    Parameters
    ----------
    stages : sequence of Stage
        From :func:`vq.calibration.stages.stages_of`.
    work : Work
    streams : Streams or None
        None where the worker needs no inputs; nothing then runs.
    store : Store, optional
        Where finished stages are kept, and taken from. Hidden states are not: they are many, and
        running finished stages again gives the same.
    """
    for number, stage in enumerate(stages):
        with work.at(stage):
            if stage.layers:
                _work(number, stage, work, store)
            if streams is not None and number + 1 < len(stages):
                with together():
                    streams.advance(stage)


def _work(number: int, stage: Stage, work: Work, store: Store | None) -> None:
    if store is None:
        work.do(stage)
        return
    with together():
        state = store.load(number)
    if state is not None:
        work.use(stage, state)
        return
    state = work.do(stage)
    with together():
        store.save(number, state)
