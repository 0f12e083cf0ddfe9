"""What to do with each layer: methods and the patterns that select layers for them."""

import difflib
import fnmatch
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vq.container import INDEX_BITS_MAX, TILE_OUTPUTS
from vq.errors import RecipeError, bulleted

__all__ = ["SSVQ", "VQ", "Int8", "Method", "Recipe"]


@dataclass(frozen=True)
class _Codebook:
    """Settings that both codebook methods share.

    Attributes
    ----------
    d : int
        Weights per sub-vector.
    k : int
        Codewords in the codebook.
    axis : "in" or "out"
        Direction of a sub-vector: consecutive inputs of one output, or consecutive outputs.
    scale : "layer" or "output"
        One fp32 scale for the layer, or one for every output.
    tile_outputs : int
        Outputs in one block of the stream order.
    """

    d: int
    k: int
    axis: str = "in"
    scale: str = "layer"
    tile_outputs: int = TILE_OUTPUTS

    def problems(self) -> list[str]:
        """Everything that is wrong with these settings by themselves."""
        found = []
        if not 1 <= self.d <= 64:
            found.append(f"d must be 1 to 64, not {self.d!r}")
        if not 2 <= self.k <= 1 << INDEX_BITS_MAX:
            found.append(f"k must be 2 to {1 << INDEX_BITS_MAX}, not {self.k!r}")
        if self.axis not in ("in", "out"):
            found.append(f"axis must be 'in' or 'out', not {self.axis!r}")
        if self.scale not in ("layer", "output"):
            found.append(f"scale must be 'layer' or 'output', not {self.scale!r}")
        if self.tile_outputs < 1:
            found.append(f"tile_outputs must be positive, not {self.tile_outputs!r}")
        elif self.axis == "out" and not found and self.tile_outputs % self.d:
            found.append(f"tile_outputs must be a multiple of d, not {self.tile_outputs!r}")
        return found

    def misfit(self, outputs: int, inputs: int) -> list[str]:
        """Everything that keeps these settings from a weight matrix [outputs, inputs]."""
        along, what = (inputs, "inputs") if self.axis == "in" else (outputs, "outputs")
        if along % self.d:
            return [f"d must divide its {along} {what}, not be {self.d}"]
        count = outputs * inputs // self.d
        if self.k > count:
            return [f"k must be at most its {count} sub-vectors, not {self.k}"]
        return []


@dataclass(frozen=True)
class SSVQ(_Codebook):
    """Sign-splitting vector quantisation: a codebook of magnitudes and a sign per weight.

    Costs ``1 + log2(k) / d`` bits per weight and the codebook.

    >>> SSVQ(d=8, k=16)
    SSVQ(d=8, k=16, axis='in', scale='layer', tile_outputs=16)
    """

    d: int = 8
    k: int = 16


@dataclass(frozen=True)
class VQ(_Codebook):
    """Plain vector quantisation with a signed codebook: ``log2(k) / d`` bits per weight."""

    d: int = 4
    k: int = 64


@dataclass(frozen=True)
class Int8:
    """Eight-bit integers with one scale per output: 8 bits per weight."""

    tile_outputs: int = TILE_OUTPUTS

    def problems(self) -> list[str]:
        """Everything that is wrong with these settings by themselves."""
        return [] if self.tile_outputs > 0 else ["tile_outputs must be positive"]

    def misfit(self, outputs: int, inputs: int) -> list[str]:
        """Int8 fits every matrix."""
        return []


Method = SSVQ | VQ | Int8


class Recipe:
    """Patterns for layer names, each with a method, or None to keep the layer as it is.

    A layer takes the first of: the key that is its exact name; the first glob that matches
    (``*``, ``?``, ``[...]``); the first ``re:`` pattern that matches the whole name; the key
    ``*``. Without any of these it is kept.

    Parameters
    ----------
    rules : mapping of pattern to method or None

    Raises
    ------
    RecipeError
        With every problem of the recipe at once.

    Examples
    --------
    >>> recipe = Recipe({"*": SSVQ(d=8, k=16), "head": None, "blocks.*.fc?": VQ(d=4, k=64)})
    >>> chosen = recipe.resolve(["blocks.0.fc1", "blocks.0.qkv", "head"])
    >>> chosen["blocks.0.fc1"].k, chosen["blocks.0.qkv"].k, chosen["head"]
    (64, 16, None)
    """

    def __init__(self, rules: Mapping[str, Method | None]) -> None:
        problems = []
        if not rules:
            problems.append("rules must hold at least one pattern, not none")
        for key, method in rules.items():
            if method is not None and not isinstance(method, Method):
                problems.append(
                    f"key {key!r}: method must be SSVQ, VQ, Int8 or None, not {method!r}"
                )
                continue
            if key.startswith("re:"):
                try:
                    re.compile(key[3:])
                except re.error as error:
                    problems.append(f"key {key!r}: must be a valid pattern, but {error}")
            problems += [f"key {key!r}: {p}" for p in (method.problems() if method else ())]
        if problems:
            raise RecipeError(bulleted("recipe", problems))
        self.rules = dict(rules)

    def __repr__(self) -> str:
        return f"Recipe({self.rules!r})"

    def resolve(self, names: Iterable[str]) -> dict[str, Method | None]:
        """Choose a method for every layer name.

        Raises
        ------
        RecipeError
            If a key matches no layer; the message suggests the nearest name.
        """
        layers = list(names)
        problems = []
        for key in self.rules:
            if not any(_matches(key, name) for name in layers):
                near = difflib.get_close_matches(key.removeprefix("re:"), layers, n=1, cutoff=0.4)
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                problems.append(f"key {key!r} must match at least one layer, not 0{hint}")
        if problems:
            raise RecipeError(bulleted("recipe", problems))
        ranked = sorted(self.rules, key=_rank)  # stable: the order of the recipe breaks ties
        chosen: dict[str, Method | None] = {}
        for name in layers:
            winner = next((key for key in ranked if _matches(key, name)), None)
            chosen[name] = None if winner is None else self.rules[winner]
        return chosen

    def to_json(self) -> dict[str, Any]:
        """Rules as plain data, for the container's metadata."""
        return {
            key: None
            if method is None
            else {"method": type(method).__name__.lower()} | asdict(method)
            for key, method in self.rules.items()
        }


def _rank(key: str) -> int:
    if key == "*":
        return 3
    if key.startswith("re:"):
        return 2
    return 1 if any(c in key for c in "*?[") else 0


def _matches(key: str, name: str) -> bool:
    if key.startswith("re:"):
        return re.fullmatch(key[3:], name) is not None
    return key == name or fnmatch.fnmatchcase(name, key)
