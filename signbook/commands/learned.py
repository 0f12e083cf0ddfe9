"""``signbook quantize`` by methods that learn: lwc, omniquant, duquant, prefixquant, lsi, sde."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from signbook.commands.defaults import Defaults
from signbook.commands.job import Done, Job, rows_of
from signbook.commands.printing import print_table
from vq.errors import ConfigError

if TYPE_CHECKING:
    from vq.perturbation.composition import Perturb
    from vq.perturbation.door import LearnedResult
    from vq.recipe.selection import Selected

__all__ = ["BASES", "METHODS", "Learned", "learned_of"]

#: Methods, and which options each has of its own.
METHODS: Mapping[str, tuple[str, ...]] = {
    "lwc": ("window",),
    "omniquant": ("window",),
    "duquant": ("window",),
    "prefixquant": ("window",),
    "lsi": ("corner", "base", "window"),
    "sde": ("width", "corner", "base", "window"),
}
#: What a method that moves weights may add to; the first one it does anyway.
BASES = ("lwc", "omniquant", "duquant", "prefixquant")
#: Methods that round activations as a part of the model, which its file keeps.
_ROUNDING = ("duquant", "prefixquant")
_SDE = Defaults("vq.methods.sde", "sde_")


@dataclass(frozen=True)
class Learned:
    """A method by its name, with what was given for it.

    Attributes
    ----------
    name : str
    options : dict
        Of the method.
    base : str
        What it adds to, one of :data:`BASES`.
    epochs : int or None
        None is the library's number.
    look_ahead : int
    window : int
    """

    name: str
    options: dict[str, int] = field(default_factory=dict)
    base: str = BASES[0]
    epochs: int | None = None
    look_ahead: int = 0
    window: int = 1
    needs_data: ClassVar[bool] = True
    codebooks: ClassVar[str | None] = None
    per_output: ClassVar[bool] = False
    part: ClassVar[str] = "block"

    def check(self, selected: "list[Selected]") -> None:
        """Nothing more than what the library refuses."""

    def quantize(self, job: Job) -> Done:
        """Quantise the job's model in place."""
        from importlib import import_module

        settings: dict[str, Any] = {"look_ahead": self.look_ahead, "window": self.window}
        if self.epochs is not None:
            settings["epochs"] = self.epochs
        name = self.name
        if self.base == BASES[0]:
            settings |= self.options
        else:
            name, settings["perturb"] = self.base, self._perturb()
        if name in _ROUNDING:
            settings["activation_bits"] = job.activation_bits
        else:
            settings["activations"] = job.rounded()
        run = getattr(import_module(f"vq.methods.{name}"), f"{name}_")
        with job.of_use():
            result: LearnedResult = run(
                job.network, job.calibration or [], job.rules, **settings, **job.running
            )
        more = {"pairs": [asdict(one) for one in result.pairs]} if result.pairs else {}
        return Done(result, {"method": repr(self)}, self._layers(result), more)

    def _perturb(self) -> "Perturb":
        """What the method adds to another base than its own."""
        from vq.perturbation.composition import Perturb
        from vq.perturbation.mask import Mask

        width = {"lsi": 0, "sde": _SDE.width}[self.name]
        return Perturb(Mask(**({"width": width} | self.options)))

    def _layers(self, result: "LearnedResult") -> list[dict[str, Any]]:
        """What the document says of each layer."""
        each = [
            {"solver": self.name, "trained": layer.trained, "moved": layer.moved}
            for layer in result.layers
        ]
        return rows_of([layer.geometry for layer in result.layers], each)

    def show(self, document: dict[str, Any]) -> list[tuple[str, str]]:
        """Print layers and blocks; return how many pairs were found."""
        rows = [layer | {"moved": f"{layer['moved']:.3g}"} for layer in document["layers"]]
        columns = ("name", "method", "bits_per_weight", "trained", "moved")
        print_table("quantised layers", columns, rows)
        print_table("trained blocks", ("name", "before", "after"), document["blocks"])
        pairs = document.get("pairs", [])
        if not pairs:
            return []
        left = sum(pair["reason"] is not None for pair in pairs)
        return [("pairs", f"{len(pairs) - left} scaled, {left} left out")]


def learned_of(
    method: str,
    options: Mapping[str, int | str | None],
    epochs: int | None,
    look_ahead: int,
    others: Mapping[str, object],
) -> Learned | None:
    """Read the options; None for a method that does not learn.

    Parameters
    ----------
    method : str
    options : mapping of name to int, str or None
        Of the methods that learn: width, corner, base, window.
    epochs : int or None
    look_ahead : int
    others : mapping of option to value
        What methods that learn do not have; false where it was not given.

    Raises
    ------
    ConfigError
    """
    given: dict[str, Any] = {name: x for name, x in options.items() if x is not None}
    known = METHODS.get(method, ())
    for name in given:
        if name not in known:
            have = " or ".join(one for one, own in METHODS.items() if name in own)
            raise ConfigError(f"--{name} must come with --method {have}, not with {method}")
    base, window = given.pop("base", BASES[0]), given.pop("window", 1)
    if base not in BASES:
        raise ConfigError(f"--base must be one of {', '.join(BASES)}, not {base!r}")
    if method not in METHODS:
        return None
    for option, value in others.items():
        if value:
            raise ConfigError(
                f"{option} must stand without --method {method}, which has no use of it"
            )
    return Learned(method, given, base, epochs, look_ahead, window)
