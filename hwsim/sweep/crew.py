"""Points under way on an executor whose workers may die."""

from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    wait,
)
from typing import Any

from hwsim.sweep.evaluate import Work, failure
from hwsim.sweep.space import Point
from vq.container import SimulationError

__all__ = ["Crew", "Evaluate"]

Evaluate = Callable[[Work], dict[str, Any]]


class Crew:
    """Evaluates points, a few at a time, and finds out which of them kill their worker.

    A worker that dies breaks a pool of processes, and with it all that is under way. The pool
    is made anew, and the points that were under way then run one by one, so that the next one to
    die is the one to blame. It is tried again, then given up. All others lose nothing.

    Parameters
    ----------
    make : callable
        Makes the executor, and a new one in place of one that broke.
    size : int
        Points under way at once.
    retries : int
        How often a point whose worker died is tried again.
    evaluate : callable
        Top-level function of a module that the workers can import.
    """

    def __init__(
        self, make: Callable[[], Executor], *, size: int, retries: int, evaluate: Evaluate
    ) -> None:
        self._make, self._size = make, size
        self._retries, self._evaluate = retries, evaluate
        self._executor = make()
        self._work: dict[Point, Work] = {}
        self._waiting: deque[Point] = deque()
        self._suspects: deque[Point] = deque()
        self._deaths: Counter[Point] = Counter()
        self._flying: dict[Future[dict[str, Any]], Point] = {}

    @property
    def has_room(self) -> bool:
        """Whether it would start on another point."""
        return not self._suspects and len(self._work) < self._size

    @property
    def is_idle(self) -> bool:
        """Whether nothing is left to do."""
        return not self._work

    def add(self, point: Point, work: Work) -> None:
        """Take a point on."""
        self._work[point] = work
        self._waiting.append(point)
        self._start()

    def finished(self) -> list[tuple[Point, dict[str, Any]]]:
        """Wait until points have come to an end, and return them with their rows.

        None may have, if a pool had to be made anew.

        Raises
        ------
        SimulationError
            If the executor cancels what it was given.
        """
        self._start()
        done = wait(self._flying, return_when=FIRST_COMPLETED).done
        if any(_broke(future) for future in done):
            done = wait(self._flying).done  # it broke for all of them
        alone = len(self._flying) == 1
        rows, died = [], []
        for future in sorted(done, key=list(self._flying).index):
            point = self._flying.pop(future)
            if _broke(future):
                died.append(point)
                continue
            try:
                row = future.result()
            except CancelledError:
                raise SimulationError(
                    "executor must finish what it was given, not cancel it; every finished point "
                    "is kept, go on with --resume"
                ) from None
            except Exception as error:  # a row cannot be sent, or a remote worker died
                row = failure(self._work[point], error)
            rows.append((point, row))
        if died:
            rows += self._blame(died, alone=alone)
            self._renew()
        for point, _ in rows:
            del self._work[point]
        return rows

    def close(self) -> None:
        """End the workers; wait for nothing that is still under way."""
        end = getattr(self._executor, "terminate_workers", None)
        if end is not None and self._flying:
            end()
            return
        for future in self._flying:
            future.cancel()
        self._executor.shutdown(wait=not self._flying)

    def _blame(self, died: list[Point], *, alone: bool) -> list[tuple[Point, dict[str, Any]]]:
        self._deaths.update(died)
        (first, *_) = died
        if alone and self._deaths[first] > self._retries:
            error = SimulationError(
                f"worker must live until it is done, but died {self._deaths[first]} times"
            )
            return [(first, failure(self._work[first], error))]
        self._suspects.extendleft(reversed(died))
        return []

    def _start(self) -> None:
        """Start what may run now: one suspect alone, or as many others as there is room for."""
        if self._suspects:
            if not self._flying:
                self._submit(self._suspects)
            return
        if any(self._deaths[point] for point in self._flying.values()):
            return
        while self._waiting and len(self._flying) < self._size and self._submit(self._waiting):
            pass

    def _submit(self, queue: deque[Point]) -> bool:
        """Start the first of a queue; False if the pool is broken and others have to end first."""
        work = self._work[queue[0]]
        try:
            future = self._executor.submit(self._evaluate, work)
        except BrokenExecutor:
            if self._flying:
                return False
            self._renew()  # a worker died while it had nothing to do
            future = self._executor.submit(self._evaluate, work)
        self._flying[future] = queue.popleft()
        return True

    def _renew(self) -> None:
        self._executor.shutdown(wait=False)
        self._executor = self._make()


def _broke(future: Future[dict[str, Any]]) -> bool:
    return not future.cancelled() and isinstance(future.exception(), BrokenExecutor)
