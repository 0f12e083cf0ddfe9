"""``signbook quantize --tune``: training behind the solvers, of blocks and of the whole model."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vq.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    import rescomp
    from signbook.tasks import Task

__all__ = ["Tune", "tuning_of"]

_PARTS = ("blocks", "scales")


@dataclass(frozen=True)
class Tune:
    """What is to be tuned.

    Attributes
    ----------
    parts : list of str
        "blocks", each as soon as it is solved; "scales" and norms, in the end.
    epochs : int or None
        Passes over the data in both, if they are not to be the library's.
    look_ahead : int
        Of blocks.
    """

    parts: list[str]
    epochs: int | None
    look_ahead: int

    @property
    def scales(self) -> bool:
        """Whether the model learns from the outputs of the original in the end."""
        return "scales" in self.parts

    def blocks(self) -> "rescomp.Tuning | None":
        """How blocks are tuned."""
        import rescomp

        if "blocks" not in self.parts:
            return None
        return rescomp.Tuning(look_ahead=self.look_ahead, **self._epochs())

    def distil(
        self,
        network: "nn.Module",
        original: "nn.Module",
        calibration: list[Any],
        task: "Task",
        **settings: Any,
    ) -> dict[str, float]:
        """Train scales and norms of a quantised model; return the loss before and after.

        Parameters
        ----------
        settings : checkpoint_dir, resume, seed
            Of :func:`vq.distil_`.
        """
        import vq
        from signbook.objectives import Embedded, objective_of

        objective = objective_of(task)
        taught, teacher = network, original
        if objective.needs_teacher:
            taught, teacher = Embedded(network), Embedded(original)
        loss = objective.distillation_loss
        found = vq.distil_(taught, calibration, teacher, loss=loss, **self._epochs(), **settings)
        return {"before": found.before, "after": found.after}

    def _epochs(self) -> dict[str, Any]:
        return {} if self.epochs is None else {"epochs": self.epochs}


def tuning_of(
    tune: str | None,
    epochs: int | None,
    look_ahead: int,
    *,
    data: bool,
    compensates: bool,
) -> Tune:
    """Read the options.

    Parameters
    ----------
    tune : str or None
        Parts, with commas between them.
    data, compensates : bool
        Whether there are data, and the method compensates.

    Raises
    ------
    ConfigError
    """
    parts = [] if tune is None else sorted(set(tune.split(",")))
    if not {*parts} <= {*_PARTS}:
        raise ConfigError(f"--tune must be blocks, scales or blocks,scales, not {tune!r}")
    if look_ahead and "blocks" not in parts:
        raise ConfigError("--look-ahead must come with --tune blocks, not without")
    if epochs is not None and not parts:
        raise ConfigError("--epochs must come with --tune, not without")
    if parts and not data:
        raise ConfigError("--tune must come with --data, not without")
    if "blocks" in parts and not compensates:
        raise ConfigError("--tune blocks must come with a method that compensates, not with rtn")
    return Tune(parts, epochs, look_ahead)
