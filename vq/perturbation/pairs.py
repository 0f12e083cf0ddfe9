"""Pairs: what gives a tensor and what reads it, with scales between the two that cancel.

Pairs are proposed from what a run shows and from the usual names; whether one is exact is not
decided here (:mod:`vq.perturbation.finding`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vq.layers import op_of, shape_of

__all__ = ["Heard", "Pair", "Part", "Proposal", "proposals"]

#: Last names of the linears of attention; "qkv" are those of all three, one below the other.
_ROLES = {
    "q": ("q", "q_proj", "query", "q_lin", "to_q", "wq"),
    "k": ("k", "k_proj", "key", "k_lin", "to_k", "wk"),
    "v": ("v", "v_proj", "value", "v_lin", "to_v", "wv"),
    "qkv": ("qkv", "qkv_proj", "c_attn", "query_key_value", "Wqkv"),
}


@dataclass(frozen=True, eq=False)
class Part:
    """One side of a linear layer that a pair scales.

    Attributes
    ----------
    layer : str
    inputs : bool
        The columns of its matrix; otherwise its rows, and its bias.
    grows : bool
        They are multiplied by the scales; otherwise divided.
    at : [I] or [O] int64
        Number of the scale of each column or row; -1 of those that have none.
    """

    layer: str
    inputs: bool
    grows: bool
    at: Tensor

    def scaled(self, tensor: Tensor, scale: Tensor) -> Tensor:
        """Scale what has a column or row in each place of its last dimension."""
        each = torch.cat((scale, scale.new_ones(1)))[self.at]  # -1 is the last
        return tensor * each if self.grows else tensor / each


@dataclass(frozen=True, eq=False)
class Pair:
    """What is scaled against each other.

    Attributes
    ----------
    name : str
        For example ``norm1 -> attn.qkv``.
    size : int
        Number of scales.
    parts : tuple of Part
    norm : str or None
        A norm whose gain and bias are divided, too.
    shifts : bool
        Its bias is also shifted, which the biases of the layers behind make up for.
    """

    name: str
    size: int
    parts: tuple[Part, ...]
    norm: str | None = None
    shifts: bool = False


@dataclass(frozen=True, eq=False)
class Proposal:
    """Forms that a pair may have, of which the first exact one is to be used.

    Attributes
    ----------
    name : str
    forms : list of Pair
    """

    name: str
    forms: list[Pair]


@dataclass(frozen=True)
class Heard:
    """What a run of a stage has shown.

    Attributes
    ----------
    order : tuple of str
        Linear layers, as they ran.
    readers : mapping of norm to layers
        Which of them were given exactly what a norm gave.
    """

    order: tuple[str, ...]
    readers: Mapping[str, tuple[str, ...]]


def proposals(heard: Heard, modules: Mapping[str, nn.Module], block: str) -> list[Proposal]:
    """What may be pairs: norms with their readers, values with outputs, queries with keys.

    Parameters
    ----------
    heard : Heard
    modules : mapping of name to module
        Of the whole model.
    block : str
        Name of the block, which names of pairs leave out.
    """
    found: list[Proposal] = []
    for norm, readers in heard.readers.items():
        name = _named(block, [norm], readers)
        found.append(Proposal(name, list(_of_norm(name, norm, readers, modules))))
    for q, k, v, o in _attentions(heard, modules):
        sizes = _head_sizes(modules, k)
        if o is not None:
            name = _named(block, [v.layer], [o])
            found.append(Proposal(name, list(_of_values(name, v, o, modules, sizes))))
        name = _named(block, [q.layer], [k.layer], "<->")
        found.append(Proposal(name, list(_of_products(name, q, k, sizes))))
    return found


def _named(block: str, givers: Sequence[str], readers: Sequence[str], arrow: str = "->") -> str:
    sides = (
        ", ".join(name.removeprefix(f"{block}.") for name in side) for side in (givers, readers)
    )
    return f" {arrow} ".join(sides)


def _of_norm(
    name: str, norm: str, readers: Sequence[str], modules: Mapping[str, nn.Module]
) -> Iterator[Pair]:
    weight = modules[norm].weight
    assert isinstance(weight, Tensor)
    size = len(weight)
    parts = tuple(Part(layer, inputs=True, grows=True, at=torch.arange(size)) for layer in readers)
    biased = (getattr(modules[one], "bias", None) is not None for one in (norm, *readers))
    if all(biased):
        yield Pair(name, size, parts, norm, shifts=True)
    yield Pair(name, size, parts, norm)


@dataclass(frozen=True)
class _Rows:
    """Some rows of a layer."""

    layer: str
    first: int
    count: int
    total: int

    def at(self, places: Tensor) -> Tensor:
        found = places.new_full((self.total,), -1)
        found[self.first : self.first + self.count] = places
        return found


def _attentions(
    heard: Heard, modules: Mapping[str, nn.Module]
) -> Iterator[tuple[_Rows, _Rows, _Rows, str | None]]:
    """Queries, keys, values, and the layer that runs next."""
    homes: dict[str, dict[str, str]] = {}
    for name in heard.order:
        home, _, last = name.rpartition(".")
        role = next((role for role, names in _ROLES.items() if last in names), None)
        if role is not None:
            homes.setdefault(home, {})[role] = name
    for roles in homes.values():
        counts = {role: _shape(modules[name])[0] for role, name in roles.items()}
        if {"q", "k", "v"} <= roles.keys():
            q, k, v = (_Rows(roles[role], 0, counts[role], counts[role]) for role in "qkv")
        elif "qkv" in roles and counts["qkv"] % 3 == 0:
            part = counts["qkv"] // 3
            q, k, v = (_Rows(roles["qkv"], i * part, part, 3 * part) for i in range(3))
        else:
            continue
        behind = 1 + max(heard.order.index(name) for name in roles.values())
        yield q, k, v, next(iter(heard.order[behind:]), None)


def _head_sizes(modules: Mapping[str, nn.Module], k: _Rows) -> list[int]:
    """Sizes that a head may have: the one that its module tells, or any that divides the rows."""
    told: object = getattr(modules[k.layer.rpartition(".")[0]], "head_dim", None)
    sizes = [told] if isinstance(told, int) and told > 0 else [*range(1, k.count + 1)]
    return [size for size in sizes if k.count % size == 0]


def _of_values(
    name: str, v: _Rows, o: str, modules: Mapping[str, nn.Module], sizes: list[int]
) -> Iterator[Pair]:
    for met in _met(_shape(modules[o])[1], v.count, sizes):
        parts = (
            Part(v.layer, inputs=False, grows=False, at=v.at(torch.arange(v.count))),
            Part(o, inputs=True, grows=True, at=met),
        )
        yield Pair(name, v.count, parts)


def _of_products(name: str, q: _Rows, k: _Rows, sizes: list[int]) -> Iterator[Pair]:
    """A scale for each row of the keys, or one for the two that a rotary embedding turns."""
    seen = set()
    for turned in (_single, _halves, _adjacent):
        for size in sizes:
            scale = turned(torch.arange(k.count), size)
            if scale is None:
                continue
            for met in _met(q.count, k.count, [size]):
                key = (tuple(scale.tolist()), tuple(met.tolist()))
                if key in seen:
                    continue
                seen.add(key)
                parts = (
                    Part(q.layer, inputs=False, grows=False, at=q.at(scale[met])),
                    Part(k.layer, inputs=False, grows=True, at=k.at(scale)),
                )
                yield Pair(name, int(scale.max()) + 1, parts)


def _single(row: Tensor, size: int) -> Tensor | None:
    return row


def _halves(row: Tensor, size: int) -> Tensor | None:
    return None if size % 2 else row // size * (size // 2) + row % size % (size // 2)


def _adjacent(row: Tensor, size: int) -> Tensor | None:
    return None if len(row) % 2 else row // 2


def _met(count: int, held: int, sizes: list[int]) -> Iterator[Tensor]:
    """Which of ``held`` channels each of ``count`` meets: several heads may share one, [count]."""
    each = torch.arange(count)
    if count == held:
        yield each
    elif count % held == 0:
        for size in sizes:
            yield each // size // (count // held) * size + each % size


def _shape(module: nn.Module) -> tuple[int, int]:
    """Outputs and inputs of a linear layer."""
    op, weight = op_of(module), module.weight
    assert op is not None and isinstance(weight, Tensor)
    outputs, inputs = shape_of(weight, op)
    return outputs, inputs
