"""Choose a format for every layer: measure what each would cost, then spend a budget best."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from vq.calibration.batches import Batch, repeatable
from vq.calibration.norms import Norms, reestimate_norms_, warn_of_norms
from vq.compress import compress_group
from vq.container import Geometry, account
from vq.errors import ConfigError, RecipeError
from vq.formats.format import Format
from vq.formats.scalar import Int8
from vq.progress import bar
from vq.recipe.recipe import Recipe
from vq.recipe.selection import Selected, select

__all__ = ["Choice", "allocate", "sensitivity"]

_FP32_BYTES = 4
_BUCKETS = 8192


@dataclass(frozen=True)
class Choice:
    """One format for one layer, and what it does.

    Attributes
    ----------
    method : Format or None
        None keeps the layer.
    geometry : Geometry or None
        The layer as it would be stored; None if it is kept.
    loss_increase : float
        Score of the model with only this layer compressed, minus that of the original.
    weights, bytes : int
        Weights of the layer, and bytes it would take: stream, codebook, scales, padding, or fp32.
    """

    method: Format | None
    geometry: Geometry | None
    loss_increase: float
    weights: int
    bytes: int


def sensitivity(
    model: nn.Module,
    methods: Mapping[str, Sequence[Format | None]],
    score: Callable[[nn.Module], float],
    *,
    calibration: Iterable[Batch] | None = None,
    norms: bool = True,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, list[Choice]]:
    """Measure how much each format hurts each layer, one layer at a time.

    Parameters
    ----------
    model : nn.Module
        Unchanged afterwards.
    methods : mapping of pattern to formats
        Candidates for the layers that a pattern selects; patterns as in :class:`vq.Recipe`. A
        format that does not fit a layer is left out for it; None is the choice to keep it.
    score : callable
        Loss of a model on held-out data, lower is better. Called once per layer and format.
    calibration : iterable of batches, optional
        Inputs, or (inputs, targets), on which the statistics of batch norms are measured again
        before every score, that of the original model too. Not those that are scored.
    norms : bool
        False leaves the norms as they are, and warns of nothing.
    seed : int
    progress : bool
        Show a progress bar when standard error is a terminal.

    Returns
    -------
    dict of layer name to its choices, in model order

    Raises
    ------
    RecipeError
        If a pattern matches nothing, or no format fits a layer.
    ConfigError
        If the score is not a finite number, or the calibration data are not what the model accepts.
    """
    if norms and calibration is None:
        warn_of_norms(model)
    batches = repeatable(calibration) if norms and calibration is not None else None
    jobs: dict[str, list[Format | None]] = {}
    layers: dict[tuple[str, Format | None], Selected] = {}
    rules: list[Format | None] = [m for group in methods.values() for m in group]
    for method in dict.fromkeys(m for m in rules if m is not None):
        recipe: dict[str, Format | None] = {
            pattern: method if method in group else None for pattern, group in methods.items()
        }
        for layer in select(model, Recipe(recipe), skip_misfits=True).layers:
            jobs.setdefault(layer.name, []).append(method)
            layers[layer.name, method] = layer
    order = {name: i for i, (name, _) in enumerate(model.named_modules())}
    baseline = _score(model, score, batches, "the original model")
    found: dict[str, list[Choice]] = {}
    with bar("sensitivity", sum(map(len, jobs.values())), enabled=progress) as advance:
        for name in sorted(jobs, key=order.__getitem__):
            for candidate in jobs[name]:
                layer = layers[name, candidate]
                (compressed,) = compress_group([layer], {}, seed)
                original = layer.weight.clone()
                with torch.no_grad():
                    decoded = compressed.approximation(layer.weight)
                    try:
                        layer.weight.copy_(decoded)
                        loss = _score(model, score, batches, f"layer {name!r} as {candidate}")
                    finally:
                        layer.weight.copy_(original)
                (counted,) = account([layer.geometry])
                found.setdefault(name, []).append(
                    Choice(
                        candidate, layer.geometry, loss - baseline, counted.geometry.weights,
                        counted.total_bytes,
                    )
                )  # fmt: skip
                advance(note=f"{name} {loss - baseline:+.4g}")
    _offer_to_keep(found, methods, model)
    return found


def _offer_to_keep(
    found: dict[str, list[Choice]],
    methods: Mapping[str, Sequence[Format | None]],
    model: nn.Module,
) -> None:
    """Add the choice None where the candidates hold it."""
    # Int8 fits every layer, so this selects those that have None among their candidates.
    keepable: dict[str, Format | None] = {
        pattern: Int8() if None in group else None for pattern, group in methods.items()
    }
    if not any(keepable.values()):
        return
    for layer in select(model, Recipe(keepable)).layers:
        weights = layer.geometry.weights
        choice = Choice(None, None, 0.0, weights, _FP32_BYTES * weights)
        found.setdefault(layer.name, []).append(choice)


def _score(
    model: nn.Module,
    score: Callable[[nn.Module], float],
    batches: Iterable[Batch] | None,
    what: str,
) -> float:
    """Score a model with its norms measured again on batches; they come back afterwards."""
    with Norms(model).kept():
        if batches is not None:
            reestimate_norms_(model, batches)
        value = score(model)
    if not np.isfinite(value):
        raise ConfigError(f"score of {what} must be finite, not {value}")
    return float(value)


def allocate(
    choices: Mapping[str, Sequence[Choice]],
    *,
    budget_bytes: float | None = None,
    budget_bits_per_weight: float | None = None,
    budget_cost: float | None = None,
    cost: Callable[[Choice], float] | None = None,
) -> Recipe:
    """Pick one choice per layer with the least total loss increase within a budget.

    A multiple-choice knapsack, solved by dynamic programming over 8192 steps of what the budget
    leaves above the cheapest choices; costs are rounded up to such a step, so the budget always
    holds, or to whole bytes where those are larger. The losses of layers are taken to add up.

    Parameters
    ----------
    choices : mapping of layer name to choices
        From :func:`sensitivity`.
    budget_bytes, budget_bits_per_weight : float
        One of these: total bytes of the layers, or their average bits per weight.
    budget_cost, cost : float and callable
        Or any other cost, such as accelerator cycles: ``cost(choice)`` gives that of one layer.

    Returns
    -------
    Recipe
        With the exact name of every layer.

    Raises
    ------
    ConfigError
        If not exactly one budget is given.
    RecipeError
        If even the cheapest choices exceed the budget; the message names the least possible one.
    """
    given = [b for b in (budget_bytes, budget_bits_per_weight, budget_cost) if b is not None]
    if len(given) != 1 or (budget_cost is None) != (cost is None):
        raise ConfigError(
            "budget must be one of budget_bytes, budget_bits_per_weight, or budget_cost with cost"
        )
    weights = sum(options[0].weights for options in choices.values())
    budget = given[0] * weights / 8 if budget_bits_per_weight is not None else given[0]
    costs = {
        name: [float(cost(c)) if cost else float(c.bytes) for c in options]
        for name, options in choices.items()
    }
    least = sum(min(c) for c in costs.values())
    if least > budget:
        unit = 8 / weights if budget_bits_per_weight is not None else 1
        raise RecipeError(
            f"budget must be at least {least * unit:.6g}, the cost of the cheapest choices, "
            f"not {given[0]:.6g}"
        )
    picked = _knapsack(choices, costs, budget)
    return Recipe({name: choices[name][i].method for name, i in picked.items()})


def _knapsack(
    choices: Mapping[str, Sequence[Choice]], costs: Mapping[str, list[float]], budget: float
) -> dict[str, int]:
    """Choose an index per layer. Only what exceeds the cheapest choice is spent from the budget."""
    slack = budget - sum(min(c) for c in costs.values())
    step = max(slack, np.finfo(float).tiny) / _BUCKETS
    if all(c.is_integer() for options in costs.values() for c in options):
        step = max(step, 1.0)  # whole bytes are exact steps of a small budget
    best = np.zeros(_BUCKETS + 1)  # least loss with at most this many steps spent
    decisions = []
    for name, options in choices.items():
        over = [c - min(costs[name]) for c in costs[name]]
        extra = [int(np.ceil(o / step - 1e-9)) if o <= slack else _BUCKETS + 1 for o in over]
        table = np.full((len(options), _BUCKETS + 1), np.inf)
        for i, (option, spent) in enumerate(zip(options, extra, strict=True)):
            if spent <= _BUCKETS:
                table[i, spent:] = best[: _BUCKETS + 1 - spent] + option.loss_increase
        decisions.append((name, extra, table.argmin(axis=0)))
        best = table.min(axis=0)
    at, picked = int(slack / step), {}
    for name, extra, decision in reversed(decisions):
        i = int(decision[at])
        picked[name] = i
        at -= extra[i]
    return dict(reversed(picked.items()))
