"""Which point comes next: optuna learns from those before."""

from collections.abc import Mapping, Sequence
from typing import Any

from hwsim.sweep.objectives import costs_of
from hwsim.sweep.space import Point, Space
from vq.container import ConfigError

__all__ = ["Search", "optuna_version", "search_problems"]

#: Points of a generation of NSGA-II.
_POPULATION = 20


class Search:
    """Trials of optuna: TPE for one objective, NSGA-II for several.

    Trial ``n`` is chosen when exactly the trials before ``n - window + 1`` are known to optuna,
    and they become known in their order. So what is chosen depends on the seed and on the window,
    not on which point is finished first, and a search that is run again asks for the same points.

    A trial may choose a point that an earlier one chose: it is answered with the row that is
    there, and asked for once.

    Parameters
    ----------
    space : Space
        With one target and one number of rows.
    objectives : sequence of str
    trials : int
    seed : int
    window : int
        Trials under way at once.

    Raises
    ------
    ConfigError
        If optuna is not installed.
    """

    def __init__(
        self, space: Space, objectives: Sequence[str], *, trials: int, seed: int, window: int
    ) -> None:
        optuna = _optuna()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        one = len(objectives) == 1
        self._sampler = (
            optuna.samplers.TPESampler(seed=seed)
            if one
            else optuna.samplers.NSGAIISampler(seed=seed, population_size=_POPULATION)
        )
        self._study = optuna.create_study(
            sampler=self._sampler, directions=["minimize"] * len(objectives)
        )
        # A point without a result is worse than any other; NSGA-II leaves it out.
        self._bad = optuna.trial.TrialState.PRUNED if one else optuna.trial.TrialState.FAIL
        self._first = next(space.points())
        self._space, self._objectives = space, objectives
        self._trials, self._window = trials, window
        self._asked: list[tuple[Any, Point]] = []
        self._rows: dict[Point, Mapping[str, Any] | None] = {}

    def ask(self) -> Point | None:
        """See :class:`~hwsim.sweep.grid.Plan`."""
        while (number := len(self._asked)) < self._trials:
            if number >= self._window and not self._settle(number - self._window):
                return None
            trial = self._study.ask()
            point = self._point(trial)
            self._asked.append((trial, point))
            if point not in self._rows:
                self._rows[point] = None
                return point
        return None

    def tell(self, point: Point, row: Mapping[str, Any]) -> None:
        """See :class:`~hwsim.sweep.grid.Plan`."""
        self._rows[point] = row

    def _settle(self, number: int) -> bool:
        """Tell optuna of a trial, if its row is there."""
        trial, point = self._asked[number]
        row = self._rows[point]
        if row is None:
            return False
        costs = costs_of(row, self._objectives)
        if costs is None:
            self._study.tell(trial, state=self._bad)
        else:
            self._study.tell(trial, costs)
        return True

    def _point(self, trial: Any) -> Point:
        space = self._space

        def chosen(name: str, values: Sequence[Any]) -> Any:
            # Numbers in place of values: optuna must not take 16 and "16x16" for different kinds.
            return values[trial.suggest_categorical(name, list(range(len(values))))]

        return Point(
            self._first.target,
            chosen("recipe", list(space.recipes)) if space.recipes else None,
            chosen("memory", space.memories),
            self._first.rows,
            tuple((key, chosen(f"set {key}", v)) for key, v in space.accelerator.items()),
        )


def search_problems(space: Space, objectives: Sequence[str], trials: int) -> list[str]:
    """Why a space cannot be searched."""
    problems = []
    if trials < 1:
        problems.append(f"search must have at least 1 trial, not {trials}")
    for name, values in (("targets", space.targets), ("rows", space.rows)):
        if len(values) > 1:
            problems.append(
                f"{name} must be one for a search, which compares points that do the same work, "
                f"not {len(values)}"
            )
    return problems


def optuna_version() -> str:
    """Version of the package; what it chooses may depend on that.

    Raises
    ------
    ConfigError
        If it is not installed.
    """
    return str(_optuna().__version__)


def _optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError:
        raise ConfigError(
            "search: package 'optuna' must be installed, not absent; "
            "run: pip install 'signbook[sweep]'"
        ) from None
    return optuna
