"""The parts of a model that are worked on one after the other."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from vq.calibration.survey import Chain, Survey

__all__ = ["Stage", "frozen_but", "own_parameters", "stages_of"]


@dataclass(frozen=True)
class Stage:
    """A part of the model whose layers are worked on before the next part runs.

    Attributes
    ----------
    name : str
        Of a block; else "start" is all before the first block, "end" all after the last, "model"
        all there is.
    layers : tuple of str
        Those to be worked on, in the order they run.
    place : int or None
        Number of a block.
    """

    name: str
    layers: tuple[str, ...]
    place: int | None = None


def stages_of(layers: Sequence[str], seen: Survey) -> list[Stage]:
    """Parts of a model in the order they run, up to the last of ``layers``.

    Blocks before that are there also where they hold no such layer. Layers that never ran come
    last.
    """
    order = {name: i for i, name in enumerate(seen.order)}
    ordered = sorted(layers, key=lambda layer: order.get(layer, len(order)))
    if seen.chain is None:
        return [Stage("model", tuple(ordered))]
    names, end = seen.chain.names, len(seen.chain.names)
    parts: dict[int, list[str]] = {i: [] for i in range(-1, end + 1)}
    for layer in ordered:
        parts[seen.places[layer]].append(layer)
    blocks = [Stage(name, tuple(parts[i]), i) for i, name in enumerate(names)]
    stages = [Stage("start", tuple(parts[-1])), *blocks, Stage("end", tuple(parts[end]))]
    return stages[: 1 + max(i for i, stage in enumerate(stages) if stage.layers)]


def own_parameters(model: nn.Module, chain: Chain | None, stage: Stage) -> dict[str, nn.Parameter]:
    """Parameters of a stage by name: all of a block, or those of the layers of another stage.

    What another stage holds, too, is left out: to change it would change what has been passed, or
    what is to come.
    """
    if chain is None:
        return dict(model.named_parameters())
    holders: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        holders.setdefault(id(parameter), set()).add(_holder(name, chain))
    own = {stage.name} if stage.place is not None else set(stage.layers)
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if len(held := holders[id(parameter)]) == 1 and held <= own
    }


@contextmanager
def frozen_but(model: nn.Module, parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Let no other parameters have gradients: later blocks may run, and only pass them on."""
    own = {id(parameter) for parameter in parameters}
    flags = [(p, p.requires_grad) for p in model.parameters()]
    for parameter, _ in flags:
        parameter.requires_grad_(id(parameter) in own)
    try:
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def _holder(parameter: str, chain: Chain) -> str:
    """The block, or else the layer, that a parameter belongs to."""
    for name in chain.names:
        if parameter.startswith(f"{name}."):
            return name
    module, parametrised, _ = parameter.partition(".parametrizations.")
    return module if parametrised else parameter.rpartition(".")[0]
