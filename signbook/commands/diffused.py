"""``signbook quantize --method w4a8-diffusion``: a diffusion network that draws what it drew."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from signbook.commands.job import Done, Job, rows_of
from signbook.commands.printing import print_table
from vq.errors import ConfigError

if TYPE_CHECKING:
    from vq.methods.w4a8_diffusion import W4A8Result
    from vq.recipe.selection import Selected

__all__ = ["METHOD", "STEPS", "Diffused", "diffused_of"]

METHOD = "w4a8-diffusion"
#: Of the sampler, if nothing else is said.
STEPS = 20


@dataclass(frozen=True)
class Diffused:
    """What was given for the method.

    Attributes
    ----------
    steps : int
        Of the sampler.
    sampler : str or None
        Its name; None is the model's own.
    guidance : float or None
    rounds, rows : int or None
        None is the library's number.
    """

    steps: int = STEPS
    sampler: str | None = None
    guidance: float | None = None
    rounds: int | None = None
    rows: int | None = None
    needs_data: ClassVar[bool] = False
    codebooks: ClassVar[str | None] = None
    per_output: ClassVar[bool] = True
    part: ClassVar[str] = "checkpoint"

    def check(self, selected: "list[Selected]") -> None:
        """Nothing more than what the library refuses."""

    def quantize(self, job: Job) -> Done:
        """Quantise the job's model in place."""
        from signbook.diffusion.sampler import traits_of
        from signbook.diffusion.schedulers import sampler_for
        from vq.calibration.sampling import Noise
        from vq.methods.w4a8_diffusion import Learning, Scheme, w4a8_diffusion_

        running = {key: value for key, value in job.running.items() if key != "offload"}
        scheme: dict[str, Any] = {"bits": job.activation_bits, "rows": self.rows}
        learning: dict[str, Any] = {"rounds": self.rounds}
        sampler = sampler_for(job.network, self.sampler, self.steps, guidance=self.guidance)
        with job.of_use():
            result = w4a8_diffusion_(
                job.network, sampler, Noise(*traits_of(job.network)), job.rules,
                scheme=Scheme(**{k: v for k, v in scheme.items() if v is not None}),
                learning=Learning(**{k: v for k, v in learning.items() if v is not None}),
                **running,
            )  # fmt: skip
        return Done(result, {"method": repr(self)}, _layers(result), _more(result))

    def show(self, document: dict[str, Any]) -> list[tuple[str, str]]:
        """Print layers; return what became of the time path, and losses."""
        columns = ("name", "method", "bits_per_weight", "activation_bits", "rows")
        print_table("quantised layers", columns, document["layers"])
        tables, losses = document["time_tables"], document["losses"]
        facts = [("time tables", f"{len(tables['modules'])}, for {tables['parameters']:,} weights")]
        if losses:
            facts.append(("loss, by rounds", f"{losses[0]:.4g} to {losses[-1]:.4g}"))
        return facts


def _layers(result: "W4A8Result") -> list[dict[str, Any]]:
    """What the document says of each layer."""
    each = [
        {"solver": METHOD} | {key: value for key, value in vars(layer).items() if key != "geometry"}
        for layer in result.layers
    ]
    return rows_of([layer.geometry for layer in result.layers], each)


def _more(result: "W4A8Result") -> dict[str, Any]:
    """What the document says of the time path and of learning."""
    training = result.training
    return {
        "time_tables": None if result.tables is None else asdict(result.tables),
        "losses": [] if training is None else training.losses,
    }


def diffused_of(
    method: str, options: Mapping[str, Any], others: Mapping[str, object]
) -> Diffused | None:
    """Read the options; None for another method.

    Parameters
    ----------
    method : str
    options : mapping of name to value
        Of this method: steps, sampler, guidance, rounds, rows; None where it was not given.
    others : mapping of option to value
        What it does not have; false where it was not given.

    Raises
    ------
    ConfigError
    """
    given = {name: value for name, value in options.items() if value is not None}
    if method != METHOD:
        for name in given:
            raise ConfigError(f"--{name} must come with --method {METHOD}, not with {method}")
        return None
    for option, value in others.items():
        if value:
            raise ConfigError(
                f"{option} must stand without --method {METHOD}, which has no use of it"
            )
    return Diffused(**given)
