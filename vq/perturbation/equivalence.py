"""Scales between layers while they learn: in full precision, the block computes what it did."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from vq.calibration.whole import restored
from vq.container import Geometry
from vq.layers import matrix_of, weight_of
from vq.perturbation.pairs import Pair, Part
from vq.recipe.selection import Selected

__all__ = ["Around", "Equivalence", "Equivalences", "Range"]

#: Activations and weights are taken for at least so large when scales are chosen, as published.
_LEAST = 1e-5


@dataclass(frozen=True, eq=False)
class Range:
    """Least and greatest values of a layer's inputs, [I] each."""

    low: Tensor
    high: Tensor


class Equivalence(nn.Module):
    """Scales ``s = exp(log)`` of one pair, and shifts ``h = offset * unit`` if it has some.

    Both start at 0, which is the block as it was, bit for bit. A step of Adam multiplies scales,
    and moves shifts by a share of what the norm gives, whatever their sizes.

    Parameters
    ----------
    pair : Pair
    rate : float
    device : torch.device
    """

    unit: Tensor

    def __init__(self, pair: Pair, rate: float, device: torch.device) -> None:
        super().__init__()
        self.pair, self.rate = pair, rate
        self.log = nn.Parameter(torch.zeros(pair.size, device=device))
        self.offset = nn.Parameter(torch.zeros_like(self.log)) if pair.shifts else None
        self.register_buffer("unit", torch.ones(pair.size, device=device), persistent=False)

    def scale(self) -> Tensor:
        """What is given is divided by this, [n]."""
        return self.log.exp()

    def shift(self) -> Tensor | None:
        """What is subtracted before, [n]."""
        return None if self.offset is None else self.offset * self.unit


class Around(nn.Module):
    """What all pairs together do to one layer.

    Parameters
    ----------
    parts : sequence of (Part, Equivalence)
    """

    def __init__(self, parts: Sequence[tuple[Part, Equivalence]]) -> None:
        super().__init__()
        self._parts = [part for part, _ in parts]
        self.numbers = nn.ModuleList(one for _, one in parts)

    @property
    def moves_bias(self) -> bool:
        """Whether a bias changes, too."""
        return any(not part.inputs or shift is not None for part, _, shift in self._each())

    def forward(self, matrix: Tensor) -> Tensor:
        """Scale a matrix [O, I]."""
        for part, scale, _ in self._each():
            turned = matrix if part.inputs else matrix.T
            matrix = part.scaled(turned, scale)
            matrix = matrix if part.inputs else matrix.T
        return matrix

    def bias(self, bias: Tensor, matrix: Tensor) -> Tensor:
        """Bias [O] beside the scaled matrix; both as they were."""
        for part, _, shift in self._each():
            if part.inputs and shift is not None:
                bias = bias + matrix @ shift.to(matrix.dtype)
        for part, scale, _ in self._each():
            if not part.inputs:
                bias = part.scaled(bias, scale)
        return bias

    def _each(self) -> Iterator[tuple[Part, Tensor, Tensor | None]]:
        for part, one in zip(self._parts, self.numbers, strict=True):
            assert isinstance(one, Equivalence)
            yield part, one.scale(), one.shift()


class Equivalences:
    """Pairs of a stage with their numbers.

    Parameters
    ----------
    model : nn.Module
    layers : mapping of name to Selected
        All that the pairs name.
    originals : mapping of name to Tensor
        Their weights as they are in the unquantised model.
    pairs : sequence of Pair
    rate : float
        How fast logarithms of scales learn, and shifts in units of what the norm gives.

    Attributes
    ----------
    numbers : list of Equivalence
        In the order of the pairs.
    around : dict of layer name to Around
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Mapping[str, Selected],
        originals: Mapping[str, Tensor],
        pairs: Sequence[Pair],
        rate: float,
    ) -> None:
        self._model, self._layers, self._originals = model, layers, originals
        self.numbers: list[Equivalence] = []
        device = next(iter(originals.values())).device  # of one stage
        parts: dict[str, list[tuple[Part, Equivalence]]] = {}
        for pair in pairs:
            one = Equivalence(pair, rate, device)
            self.numbers.append(one)
            for part in pair.parts:
                placed = replace(part, at=part.at.to(device))
                parts.setdefault(part.layer, []).append((placed, one))
        self.around = {name: Around(found) for name, found in parts.items()}
        self._others: list[tuple[str, str]] = []

    def modules(self) -> list[nn.Module]:
        """Layers and norms that change."""
        norms = [one.pair.norm for one in self.numbers if one.pair.norm is not None]
        return [self._model.get_submodule(name) for name in (*self.around, *norms)]

    def groups(self) -> list[dict[str, Any]]:
        """What learns, as torch's optimisers take it; each once, however many layers share it."""
        return [
            {"params": list(one.parameters()), "lr": one.rate, "weight_decay": 0.0}
            for one in self.numbers
        ]

    def scale_others(self) -> None:
        """Let gains and biases follow from now on, as parametrisations."""
        for name, around in self.around.items():
            if around.moves_bias:
                self._follow(name, "bias", _ReadBias(around, self._matrix(name)))
        for one in self.numbers:
            if one.pair.norm is not None:
                self._follow(one.pair.norm, "weight", _Given(one, shifted=False))
                self._follow(one.pair.norm, "bias", _Given(one, shifted=True))

    def others(self) -> dict[str, Tensor]:
        """Gains and biases by now, by the names of their parameters."""
        found = {}
        for name, kind in self._others:
            value = getattr(self._model.get_submodule(name), kind)
            found[f"{name}.{kind}"] = value.detach().clone()
        return found

    @contextmanager
    def unrounded(self) -> Iterator[None]:
        """Let the model compute with what the pairs make of it, and nothing is rounded."""
        with restored(self.modules()):
            for name, around in self.around.items():
                read = _Read(around, self._layers[name].geometry)
                parametrize.register_parametrization(self._layers[name].modules[0], "weight", read)
            self.scale_others()
            yield

    @torch.no_grad()
    def begin(self, ranges: Mapping[str, Range], strength: float, least: float) -> None:
        """Choose scales that make activations and weights equally wide, and shifts to the middle.

        ``s = max|x|^strength / max|w|^(1 - strength)``, in units of their geometric mean, which no
        grid sees. Queries and keys, whose products nobody rounds, start at 1.

        Parameters
        ----------
        ranges : mapping of layer name to Range
            Of layers whose inputs are scaled; of those with the same inputs, one is enough.
        strength : float
        least : float
            Of any scale.
        """
        for one in self.numbers:
            readers = [part for part in one.pair.parts if part.inputs]
            known = next((part for part in readers if part.layer in ranges), None)
            if known is None:
                continue
            seen = ranges[known.layer]
            widest = _greatest(torch.maximum(seen.high, -seen.low), known, one)
            weights = [
                _greatest(self._matrix(part.layer).abs().amax(0), part, one) for part in readers
            ]
            w = torch.stack(weights).amax(0).clamp_min(_LEAST)
            log = strength * widest.clamp_min(_LEAST).log() - (1 - strength) * w.log()
            one.log.copy_((log - log.mean()).clamp_min(math.log(least)))
            if one.offset is not None:
                one.unit.copy_(widest.clamp_min(_LEAST))
                one.offset.copy_((seen.low + seen.high) / 2 / one.unit)

    def _matrix(self, name: str) -> Tensor:
        g = self._layers[name].geometry
        return _wide(matrix_of(self._originals[name], g.op, g.axis))

    def _follow(self, name: str, kind: str, by: nn.Module) -> None:
        module = self._model.get_submodule(name)
        if getattr(module, kind, None) is not None:
            parametrize.register_parametrization(module, kind, by)
            self._others.append((name, kind))


class _Read(nn.Module):
    """Weight of a layer among pairs."""

    def __init__(self, around: Around, geometry: Geometry) -> None:
        super().__init__()
        self._around, self._geometry = around, geometry

    def forward(self, weight: Tensor) -> Tensor:
        g = self._geometry
        scaled = self._around(_wide(matrix_of(weight, g.op, g.axis)))
        return weight_of(scaled, g.shape, g.op, g.axis).to(weight.dtype)


class _ReadBias(nn.Module):
    """Bias of a layer among pairs."""

    def __init__(self, around: Around, matrix: Tensor) -> None:
        super().__init__()
        self._around, self._matrix = around, matrix

    def forward(self, bias: Tensor) -> Tensor:
        return self._around.bias(_wide(bias), self._matrix).to(bias.dtype)


class _Given(nn.Module):
    """Gain or bias of a norm."""

    def __init__(self, one: Equivalence, *, shifted: bool) -> None:
        super().__init__()
        self._one, self._shifted = one, shifted

    def forward(self, tensor: Tensor) -> Tensor:
        wide, shift = _wide(tensor), self._one.shift() if self._shifted else None
        return ((wide if shift is None else wide - shift) / self._one.scale()).to(tensor.dtype)


def _greatest(values: Tensor, part: Part, one: Equivalence) -> Tensor:
    """The greatest of what has one scale, [n]."""
    found = torch.zeros_like(one.log)
    return found.scatter_reduce(0, part.at.to(found.device), values.to(found), "amax")


def _wide(tensor: Tensor) -> Tensor:
    """In fp32, or fp64 as it is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
