"""``signbook quantize --method lwc | lsi | sde``: scalars that learn, block by block."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from signbook.commands.printing import print_table
from vq.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    import vq
    from vq.perturbation.door import LearnedResult

__all__ = ["METHODS", "Learned", "learned_of", "print_learned"]

#: Methods, and which options each has of its own.
METHODS: Mapping[str, tuple[str, ...]] = {"lwc": (), "lsi": ("corner",), "sde": ("width", "corner")}


@dataclass(frozen=True)
class Learned:
    """A method by its name, with what was given for it.

    Attributes
    ----------
    name : str
    options : dict
        Of the method.
    epochs : int or None
        None is the library's number.
    look_ahead : int
    """

    name: str
    options: dict[str, int] = field(default_factory=dict)
    epochs: int | None = None
    look_ahead: int = 0

    def quantize(
        self, network: "nn.Module", batches: list[Any], rules: "vq.Recipe", **running: Any
    ) -> "LearnedResult":
        """Quantise in place.

        Parameters
        ----------
        network : nn.Module
        batches : list of batches
        rules : Recipe
        running : checkpoint_dir, resume, offload, seed
            Of :func:`vq.perturbation.door.learn_scalars_`.
        """
        from importlib import import_module

        run = getattr(import_module(f"vq.methods.{self.name}"), f"{self.name}_")
        if self.epochs is not None:
            running["epochs"] = self.epochs
        found: LearnedResult = run(
            network, batches, rules, look_ahead=self.look_ahead, **self.options, **running
        )
        return found

    def layers(self, result: "LearnedResult") -> list[dict[str, Any]]:
        """What the document says of each layer."""
        from vq.container import account

        accounts = account([layer.geometry for layer in result.layers])
        return [
            {
                "name": layer.geometry.name,
                "method": layer.geometry.method,
                "solver": self.name,
                "weights": layer.geometry.weights,
                "bits_per_weight": counted.bits_per_weight,
                "trained": layer.trained,
                "moved": layer.moved,
            }
            for layer, counted in zip(result.layers, accounts, strict=True)
        ]


def learned_of(
    method: str,
    options: Mapping[str, int | None],
    epochs: int | None,
    look_ahead: int,
    others: Mapping[str, object],
) -> Learned | None:
    """Read the options; None for a method that does not learn.

    Parameters
    ----------
    method : str
    options : mapping of name to int or None
        Of the methods that learn.
    epochs : int or None
    look_ahead : int
    others : mapping of option to value
        What methods that learn do not have; false where it was not given.

    Raises
    ------
    ConfigError
    """
    given = {name: value for name, value in options.items() if value is not None}
    known = METHODS.get(method, ())
    for name in given:
        if name not in known:
            have = " or ".join(one for one, own in METHODS.items() if name in own)
            raise ConfigError(f"--{name} must come with --method {have}, not with {method}")
    if method not in METHODS:
        return None
    for option, value in others.items():
        if value:
            raise ConfigError(
                f"{option} must stand without --method {method}, which has no use of it"
            )
    return Learned(method, given, epochs, look_ahead)


def print_learned(layers: list[dict[str, Any]]) -> None:
    """Print the layers of a document."""
    rows = [layer | {"moved": f"{layer['moved']:.3g}"} for layer in layers]
    columns = ("name", "method", "bits_per_weight", "trained", "moved")
    print_table("quantised layers", columns, rows)
