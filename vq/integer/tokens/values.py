"""Where the elements of a tensor come from: the bookkeeping of everything that only moves numbers.

A value is a sum of terms, each of them elements of one earlier node times coefficients. The
elements are named by *labels*, and what moves a tensor about moves the labels with the same call:
so any chain of views, slices and transposes is understood at its end, and a rotation is known by
its coefficients, however a model writes it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Draft", "Statistic", "Value", "channels_of", "collected", "rotation_of"]

#: How far coefficients may be from equal, being rounded otherwise.
_CLOSE = 1e-4


@dataclass(eq=False)
class Draft:
    """A node whose numbers are still unknown.

    Attributes
    ----------
    name, op, shape, settings
        As nodes have them.
    inputs : list of (Draft, float)
        What it reads, and what that is multiplied by.
    rows : int
        How many rows it gives in the run that is traced; 0 for feature maps.
    growing : bool
        Whether they are as many as there are tokens.
    at : int
        Place on the tape where the model has its value; -1 for what no run shows.
    weight, bias : Tensor or None
        Of layers, and gains of norms.
    real : dict
        Further real numbers.
    """

    name: str
    op: str
    inputs: list[tuple["Draft", float]]
    shape: tuple[int, ...]
    rows: int
    growing: bool
    at: int = -1
    settings: dict[str, Any] = field(default_factory=dict)
    weight: Tensor | None = None
    bias: Tensor | None = None
    real: dict[str, Any] = field(default_factory=dict)

    def labels(self, batch: int) -> Tensor:
        """A name for every element, [B, rows, C] or [B, C, H, W] int64."""
        shape = self.shape if len(self.shape) == 3 else (self.rows, *self.shape)
        count = batch
        for size in shape:
            count *= size
        return torch.arange(count).view(batch, *shape)


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the model.

    Attributes
    ----------
    source : Draft
    terms : list of (coefficient, labels)
        Labels have the tensor's shape, -1 where there is no element; a coefficient is a number or
        has it, too.
    constant : Tensor, optional
        What is added, in the tensor's shape.
    at : int
        Place on the tape.
    """

    source: Draft
    terms: list[tuple[float | Tensor, Tensor]]
    at: int
    constant: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.terms[0][1].shape)

    @property
    def plain(self) -> bool:
        """Whether it is elements times one number."""
        (coefficient, _), *more = self.terms
        return not more and not isinstance(coefficient, Tensor) and self.constant is None

    def moved(self, move: Callable[[Tensor], Any], at: int) -> list["Value"]:
        """What a call gives that only moves elements: one value for each tensor."""
        moved = [
            [(c, labels) for labels in _listed(move(own))]
            if not isinstance(c, Tensor)
            else list(zip(_listed(move(c)), _listed(move(own)), strict=True))
            for c, own in self.terms
        ]
        constants: list[Tensor | None] = [None] * len(moved[0])
        if self.constant is not None:
            constants = list(_listed(move(self.constant)))
        return [
            Value(self.source, list(terms), at, constant)
            for *terms, constant in zip(*moved, constants, strict=True)
        ]

    def times(self, factor: float | Tensor, at: int) -> "Value":
        """Multiplied by a number, or by a tensor that is no value of the model."""
        terms: list[tuple[float | Tensor, Tensor]] = []
        shape = self.shape
        if isinstance(factor, Tensor):
            shape = np.broadcast_shapes(self.shape, factor.shape)
            factor = _collapsed(factor.double())
        for own, labels in self.terms:
            terms.append((_times(own, factor, shape), labels.expand(shape)))
        constant = None
        if self.constant is not None:
            constant = (self.constant.double() * factor).expand(shape)
        return Value(self.source, terms, at, constant)

    def plus(self, constant: float | Tensor, at: int) -> "Value":
        """With something added that is no value of the model."""
        extra = torch.as_tensor(constant, dtype=torch.float64)
        shape = np.broadcast_shapes(self.shape, extra.shape)
        terms = [
            (c.expand(shape) if isinstance(c, Tensor) else c, labels.expand(shape))
            for c, labels in self.terms
        ]
        held = extra if self.constant is None else self.constant.expand(shape) + extra
        return Value(self.source, terms, at, held.expand(shape))

    def joined(self, other: "Value", at: int) -> "Value":
        """The sum of two values of one source."""
        terms = list(self.terms)
        for c, labels in other.terms:
            same = next((i for i, (_, own) in enumerate(terms) if torch.equal(own, labels)), None)
            if same is None:
                terms.append((c, labels))
            else:
                total = terms[same][0] + c
                if isinstance(total, Tensor):
                    total = _collapsed(total)
                terms[same] = total, labels
        held = [one for one in (self.constant, other.constant) if one is not None]
        return Value(self.source, terms, at, sum(held[1:], held[0]) if held else None)


@dataclass(frozen=True, eq=False)
class Statistic:
    """What a root mean square norm computes of rows on its way: "square", "mean" or "rsqrt"."""

    value: Value
    stage: str
    epsilon: float = 0.0

    def next(self, stage: str, epsilon: float = 0.0) -> "Statistic":
        return replace(self, stage=stage, epsilon=self.epsilon + epsilon)


def collected(
    parts: Sequence[Value | Tensor], join: Callable[[list[Tensor]], Tensor], at: int
) -> Value | None:
    """Values of one source and constants, put together; None if the sources differ."""
    values = [one for one in parts if isinstance(one, Value)]
    source = values[0].source
    if any(one.source is not source for one in values):
        return None
    count = max(len(one.terms) for one in values)
    terms: list[tuple[float | Tensor, Tensor]] = []
    for i in range(count):
        coefficients, labels = [], []
        for one in parts:
            if isinstance(one, Value) and i < len(one.terms):
                c, own = one.terms[i]
                coefficients.append(
                    c if isinstance(c, Tensor) else torch.full(own.shape, c, dtype=torch.float64)
                )
                labels.append(own)
            else:
                shape = one.shape
                coefficients.append(torch.ones(shape, dtype=torch.float64))
                labels.append(torch.full(shape, -1))
        terms.append((_collapsed(join(coefficients)), join(labels)))
    constant = None
    if any(isinstance(one, Tensor) or one.constant is not None for one in parts):
        held = [one if isinstance(one, Tensor) else one.constant for one in parts]
        filled = [
            torch.zeros(one.shape, dtype=torch.float64) if c is None else c.double()
            for one, c in zip(parts, held, strict=True)
        ]
        constant = join(filled)
    return Value(source, terms, at, constant)


def channels_of(labels: Tensor, source: Draft, batch: int) -> tuple[Tensor, Tensor] | None:
    """Row [B, T, C] and channel of labels of a source with rows; None if texts are mixed."""
    width = source.shape[0]
    channel, row = labels % width, labels // width % source.rows
    own = labels // (width * source.rows)
    texts = torch.arange(batch).view(-1, *[1] * (labels.ndim - 1))
    return (row, channel) if bool((own == texts).all()) else None


@dataclass(frozen=True, eq=False)
class Rotation:
    """A value [B, H, T, D] as channels ``start`` to ``start + H D`` of its source, turned.

    ``cosine`` and ``sine`` are [T, D / 2].
    """

    start: int
    pairs: str
    cosine: Tensor
    sine: Tensor


def rotation_of(value: Value, batch: int) -> Rotation | None:
    """Recognise a rotation by its labels and coefficients; None if it is none."""
    if len(value.terms) != 2 or value.constant is not None or len(value.shape) != 4:
        return None
    _, heads, count, size = value.shape
    found = [channels_of(labels, value.source, batch) for _, labels in value.terms]
    if size % 2 or any(one is None for one in found) or count != value.source.rows:
        return None
    (row0, first), (row1, second) = (one for one in found if one is not None)
    rows = torch.arange(count)[:, None]
    if not bool((row0 == rows).all() and (row1 == rows).all()):
        return None
    start = int(torch.minimum(first.min(), second.min()))
    place = start + torch.arange(heads)[:, None, None] * size + torch.arange(size)
    own = first == place
    c0, c1 = (
        c.expand(value.shape) if isinstance(c, Tensor) else torch.full(value.shape, c)
        for c, _ in value.terms
    )
    mine, other = torch.where(own, c0, c1), torch.where(own, c1, c0)
    partner = torch.where(own, second, first) - place + torch.arange(size)
    if not bool((torch.where(own, first, second) == place).all()):
        return None
    cosine, sine = mine[0, 0], other[0, 0]
    if not (_alike(mine, cosine) and _alike(other, sine)):
        return None
    d = torch.arange(size)
    for pairs, want, lead in (
        ("adjacent", d ^ 1, slice(0, None, 2)),
        ("halves", (d + size // 2) % size, slice(0, size // 2)),
    ):
        follow = slice(1, None, 2) if pairs == "adjacent" else slice(size // 2, None)
        turned = _alike(cosine[:, lead], cosine[:, follow]) and _alike(
            -sine[:, lead], sine[:, follow]
        )
        if bool((partner == want).all()) and turned:
            return Rotation(start, pairs, cosine[:, follow], sine[:, follow])
    return None


def _alike(first: Tensor, second: Tensor) -> bool:
    return bool((first - second).abs().max() <= _CLOSE)


def _times(own: float | Tensor, factor: float | Tensor, shape: tuple[int, ...]) -> float | Tensor:
    if not isinstance(own, Tensor) and not isinstance(factor, Tensor):
        return own * factor
    return _collapsed((torch.as_tensor(own) * factor).expand(shape))


def _collapsed(values: Tensor) -> float | Tensor:
    """One number where all are the same but for rounding."""
    least, most = float(values.min()), float(values.max())
    if most - least <= _CLOSE * max(abs(least), abs(most)):
        return (least + most) / 2
    return values


def _listed(found: Any) -> Sequence[Any]:
    return found if isinstance(found, list | tuple) else [found]
