"""``signbook quantize --method gptq`` and its siblings: codes that compensate."""

import copy
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from signbook.commands.job import Done, Job, rows_of
from signbook.commands.layout import CODEBOOKS
from signbook.commands.printing import print_table
from signbook.commands.tuning import Tune, tuning_of
from vq.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    import rescomp
    from rescomp.methods import Method
    from vq.recipe.selection import Selected

__all__ = ["Compensated", "compensated_of", "method_named"]


@dataclass(frozen=True)
class Compensated:
    """A method that compensates, or rounds to nearest, with what was given for it.

    Attributes
    ----------
    solver : str
        Its name, without that of codebooks.
    codebooks : str or None
    method : Method
    settings : Settings
    fitting : Fitting
    importance : str or None
    norms : bool
    tune : Tune
    """

    solver: str
    codebooks: str | None
    method: "Method"
    settings: "rescomp.Settings"
    fitting: "rescomp.Fitting"
    importance: str | None
    norms: bool
    tune: Tune
    per_output: ClassVar[bool] = False
    part: ClassVar[str] = "block"

    @property
    def needs_data(self) -> bool:
        """Whether nothing can be done without."""
        return self.method.correction() is not None

    def check(self, selected: "list[Selected]") -> None:
        """Refuse options of codebooks where there are none."""
        import rescomp

        if not any(layer.geometry.k for layer in selected) and (
            self.importance is not None or self.fitting != rescomp.Fitting()
        ):
            raise ConfigError(
                "--sweeps, --restarts, --em, --again and --importance must come with layers in "
                "ssvq or vq, not without; put -ssvq or -vq behind --method, or give a --recipe"
            )

    def quantize(self, job: Job) -> Done:
        """Quantise the job's model in place."""
        import rescomp
        from vq.progress import bar

        original = copy.deepcopy(job.network) if self.tune.scales else None
        weighed = self._weighed(job)
        rounded = job.rounded()
        with job.of_use(), bar("quantising", len(job.selected)) as advance:
            result = rescomp.quantize_(
                job.network,
                job.calibration,
                job.rules,
                self.method,
                settings=self.settings,
                fitting=self.fitting,
                importance=weighed,
                activations=rounded,
                norms=self.norms,
                tuning=self.tune.blocks(),
                progress=lambda done, total, name: advance(note=name),
                **job.running,
            )
        more = {}
        if original is not None and job.task is not None:
            more["distilled"] = self.tune.distil(
                job.network,
                original,
                job.calibration or [],
                job.task,
                checkpoint_dir=job.running["checkpoint_dir"] / "scales",
                resume=job.running["resume"],
                seed=job.running["seed"],
            )
        return Done(result, self._said(result), self._layers(result), more)

    def _weighed(self, job: Job) -> "Mapping[str, Tensor] | None":
        """How much errors of every output matter."""
        from signbook.objectives import objective_of
        from vq.calibration.importance import output_gradients
        from vq.distributed import together
        from vq.progress import bar

        if self.importance is None or job.task is None:
            return None
        objective = objective_of(job.task)
        labelled = objective.calibration(job.batches)
        with together(), bar("reading gradients", None):
            return output_gradients(job.network, labelled, loss=objective.loss)

    def _said(self, result: "rescomp.QuantizeResult") -> dict[str, Any]:
        """What the document says of the settings."""
        said: dict[str, Any] = {"method": repr(self.method), "solver": repr(self.settings)}
        if any(layer.geometry.k for layer in result.layers):
            said |= {"codebooks": repr(self.fitting), "importance": self.importance}
        if self.tune.parts:
            said["tuning"] = repr(self.tune)
        if not self.norms:
            said["norms"] = False
        return said

    def _layers(self, result: "rescomp.QuantizeResult") -> list[dict[str, Any]]:
        """What the document says of each layer, with the method by the name that was given."""
        names = {self.method.name: self.solver}
        each = [
            {
                "solver": names.get(layer.method, layer.method),
                "error": layer.report.error,
                "asymmetric_error": layer.report.asymmetric_error,
                "damping": layer.report.damping,
                "dead_columns": layer.report.dead_columns,
                "tokens": layer.report.tokens,
            }
            for layer in result.layers
        ]
        return rows_of([layer.geometry for layer in result.layers], each)

    def show(self, document: dict[str, Any]) -> list[tuple[str, str]]:
        """Print layers and blocks; return what calibration could not settle, and losses."""
        layers, errors = document["layers"], ("error", "asymmetric_error")
        rows = [
            layer | {key: "" if layer[key] is None else f"{layer[key]:.3g}" for key in errors}
            for layer in layers
        ]
        columns = ("name", "method", "bits_per_weight", *errors, "tokens")
        print_table("quantised layers", columns, rows)
        if blocks := document.get("blocks"):
            print_table("tuned blocks", ("name", "before", "after"), blocks)
        facts = []
        if dead := sum(layer["dead_columns"] for layer in layers):
            said = f"{dead:,}: always 0 in the data: no weight there matters"
            facts.append(("dead inputs", said))
        damping = self.settings.damping
        if raised := [layer["name"] for layer in layers if layer["damping"] > damping]:
            facts.append(("raised damping", ", ".join(raised)))
        if distilled := document.get("distilled"):
            said = f"{distilled['before']:.4g} to {distilled['after']:.4g}"
            facts.append(("loss, distilled", said))
        return facts


def compensated_of(
    method: str,
    shares: "Mapping[str, float | str | None]",
    settings: "rescomp.Settings",
    fitting: "rescomp.Fitting",
    *,
    importance: str | None,
    norms: bool,
    tune: str | None,
    epochs: int | None,
    look_ahead: int,
    data: bool,
) -> Compensated:
    """Read the options.

    Parameters
    ----------
    method : str
        Name of a method, perhaps with that of codebooks behind it: gptq-ssvq.
    shares : mapping of name to value
        Settings of methods; None is the method's own.
    settings, fitting
        As the library takes them.
    importance, norms, tune, epochs, look_ahead
        As they were given.
    data : bool
        Whether there are some.

    Raises
    ------
    ConfigError
    """
    solver, kind = _split(method)
    chosen = method_named(solver, **shares)
    if importance not in (None, "gradients"):
        raise ConfigError(
            f"--importance must be 'gradients', not {importance!r}; inputs weigh errors anyway"
        )
    compensates = chosen.correction() is not None
    tuned = tuning_of(tune, epochs, look_ahead, data=data, compensates=compensates)
    return Compensated(solver, kind, chosen, settings, fitting, importance, norms, tuned)


def _split(method: str) -> tuple[str, str | None]:
    """Solver and codebook format of a method's name: gptq-ssvq is (gptq, ssvq)."""
    solver, _, kind = method.rpartition("-")
    return (solver, kind) if solver and kind in CODEBOOKS else (method, None)


def method_named(name: str, **options: float | str | None) -> "Method":
    """Method of a name: rtn, gptq, gptaq, gptq-r, gptaq-r, qep, which is also exa, or foem.

    Parameters
    ----------
    options : alpha, alpha2, beta, mode
        Settings of :mod:`rescomp.methods`; None is the method's own.

    Raises
    ------
    ConfigError
        If there is no such method, or it has no such setting.
    """
    from rescomp.methods import QEP, Method
    from signbook.hints import did_you_mean

    kinds: dict[str, Any] = {kind.name: kind for kind in get_args(Method)} | {"exa": QEP}
    kind = kinds.get(name)
    if kind is None:
        hint = did_you_mean(name, kinds)
        raise ConfigError(f"method must be one of {', '.join(kinds)}, not {name!r}{hint}")
    given = {key: value for key, value in options.items() if value is not None}
    known = [field.name for field in fields(kind)]
    for key in given.keys() - set(known):
        has = f"has only {', '.join(known)}" if known else "has no such settings"
        raise ConfigError(f"--{key} must come with a method that has it; {name} {has}")
    method: Method = kind(**given)
    return method
