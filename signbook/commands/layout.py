"""How ``signbook quantize`` is to store layers: bits and groups of all alike, or a recipe."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vq.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    import vq
    from vq.recipe.selection import Selected

__all__ = ["CODEBOOKS", "Layout"]

_BITS = 4
#: Codebooks of about so many bits. A sign of every sub-vector pays for twice the codewords.
CODEBOOKS: dict[str, dict[int, dict[str, Any]]] = {
    "ssvq": {2: {"d": 8, "k": 512, "parity": True}, 3: {"d": 4, "k": 256}},
    "vq": {2: {"d": 4, "k": 256}, 3: {"d": 2, "k": 64}},
}


@dataclass(frozen=True)
class Layout:
    """Bits and groups, or a recipe.

    Attributes
    ----------
    bits : int or None
    group : int or None
    asymmetric : bool
    recipe : Path or None
    codebooks : str or None
        Format of a method's codebooks, one of :data:`CODEBOOKS`.
    per_output : bool
        Whether a method has a scale for each output where no group is given.
    """

    bits: int | None
    group: int | None
    asymmetric: bool
    recipe: Path | None
    codebooks: str | None
    per_output: bool = False

    def __post_init__(self) -> None:
        grouped = self.group is not None or self.asymmetric
        if self.recipe is not None and (self.bits is not None or grouped):
            raise ConfigError(
                "--recipe must stand without --bits, --group and --asymmetric: it has them"
            )
        if self.codebooks is not None:
            known = CODEBOOKS[self.codebooks]
            if grouped:
                raise ConfigError(
                    f"--group and --asymmetric must stand without -{self.codebooks}, whose scales "
                    "are those of outputs"
                )
            if self.bits is not None and self.bits not in known:
                raise ConfigError(
                    f"--bits must be {' or '.join(map(str, known))} with -{self.codebooks}, not "
                    f"{self.bits}; give others by --recipe"
                )
        if self.bits == 8 and grouped:
            raise ConfigError(
                "--bits 8 must stand without --group and --asymmetric: int8 has one scale per "
                "output"
            )

    def recipe_for(self, network: "nn.Module") -> "vq.Recipe":
        """The recipe, read or made."""
        import rescomp
        import vq
        from vq.formats.scalar import PER_OUTPUT

        if self.recipe is not None:
            return vq.Recipe.from_yaml(self.recipe)
        if self.codebooks is not None:
            kind = {"ssvq": vq.SSVQ, "vq": vq.VQ}[self.codebooks]
            book = kind(scale="output", **CODEBOOKS[self.codebooks][self.bits or 2])
            return rescomp.default_recipe(network, book)
        group = PER_OUTPUT if self.group is None and self.per_output else self.group
        given = {} if group is None else {"group": group}
        bits = _BITS if self.bits is None else self.bits
        return rescomp.default_recipe(network, bits, zeros=self.asymmetric, **given)

    def check(self, selected: "list[Selected]", method: str) -> None:
        """Refuse a recipe without the codebooks that a method's name asks for."""
        kind = self.codebooks
        if kind is not None and kind not in {layer.format.name for layer in selected}:
            raise ConfigError(
                f"{self.recipe}: a layer must be {kind} with --method {method}, not none"
            )
