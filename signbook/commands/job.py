"""What ``signbook quantize`` has read, for what compensates or learns, and what that gives back."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from vq.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    import rescomp
    import vq
    from signbook.tasks import Task
    from vq.container import Geometry
    from vq.learning.fitting import BlockResult
    from vq.recipe.selection import Selected

__all__ = ["Done", "Door", "Job", "Result", "rows_of"]


class Result(Protocol):
    """What every method tells."""

    @property
    def layers(self) -> list[Any]:
        """Layers, each with its ``geometry``."""

    @property
    def kept(self) -> list[str]:
        """Names of the others."""

    @property
    def blocks(self) -> "list[BlockResult]":
        """Blocks that were trained."""

    @property
    def bits_per_weight(self) -> float:
        """Over the quantised layers."""


@dataclass(frozen=True, eq=False)
class Job:
    """A model, how its layers are to be stored, and data.

    Attributes
    ----------
    network : nn.Module
    rules : Recipe
    selected : list of Selected
    task : Task or None
    calibration : list of batches, or None
        This process's part.
    batches : int
        How many of the task's batches calibrate.
    activation_bits : int or None
    running : dict
        checkpoint_dir, resume, offload, seed: of every method of the library.
    """

    network: "nn.Module"
    rules: "vq.Recipe"
    selected: "list[Selected]"
    task: "Task | None"
    calibration: list[Any] | None
    batches: int
    activation_bits: int | None
    running: dict[str, Any]

    def rounded(self) -> "rescomp.ActivationQuantizer | None":
        """Round the inputs of the linear layers that are quantised, from now on."""
        if self.activation_bits is None:
            return None
        import rescomp
        from vq.distributed import together
        from vq.layers import op_of

        linear = [x.name for x in self.selected if op_of(x.modules[0]) in ("linear", "linear_t")]
        with together():
            if not linear:
                raise ConfigError(
                    "--activation-bits must come with linear layers to quantise, not none"
                )
            return rescomp.ActivationQuantizer(self.network, linear, self.activation_bits)

    @contextmanager
    def of_use(self) -> Iterator[None]:
        """Remove checkpoints of a run that its data or settings end: they belong to no other."""
        from vq.calibration.memory import is_out_of_memory
        from vq.learning.checkpoint import clear

        checkpoints = self.running["checkpoint_dir"]
        new = not any(checkpoints.rglob("step-*"))
        try:
            yield
        except ConfigError as error:
            cause = error.__cause__
            if new and (cause is None or not is_out_of_memory(cause)):
                clear(checkpoints)
            raise


@dataclass(frozen=True, eq=False)
class Done:
    """What a door gives back.

    Attributes
    ----------
    result : Result
    settings, layers
        As the document has them.
    more : dict
        Of the document, behind the blocks.
    """

    result: Result
    settings: dict[str, Any]
    layers: list[dict[str, Any]]
    more: dict[str, Any] = field(default_factory=dict)

    def facts(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Part of the document, with settings that are no method's beside its own."""
        blocks = [asdict(one) for one in self.result.blocks]
        return {
            "settings": self.settings | settings,
            "layers": self.layers,
            "kept": self.result.kept,
            **({"blocks": blocks} if blocks else {}),
            **self.more,
        }


class Door(Protocol):
    """What quantises: by compensating, or by learning."""

    @property
    def needs_data(self) -> bool:
        """Whether nothing can be done without."""

    @property
    def codebooks(self) -> str | None:
        """Format of codebooks that the method's name asks for."""

    @property
    def per_output(self) -> bool:
        """Whether scalars have a scale for each output unless groups are given."""

    @property
    def part(self) -> str:
        """What a run that is stopped goes on from."""

    def check(self, selected: "list[Selected]") -> None:
        """Refuse what does not fit the layers."""

    def quantize(self, job: Job) -> Done:
        """Quantise the job's model in place."""

    def show(self, document: dict[str, Any]) -> list[tuple[str, str]]:
        """Print layers and blocks; return what else there is to say."""


def rows_of(geometries: "list[Geometry]", each: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the document says of each layer: what all methods have, and ``each`` of its own."""
    from vq.container import account

    return [
        {
            "name": g.name,
            "method": g.method,
            "solver": own.pop("solver"),
            "weights": g.weights,
            "bits_per_weight": counted.bits_per_weight,
            **own,
        }
        for g, counted, own in zip(geometries, account(geometries), each, strict=True)
    ]
