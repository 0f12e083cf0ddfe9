"""Statistics of the inputs of layers, from both models on every batch."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch import distributed as dist

from vq import distributed
from vq.calibration.batches import shapes_of
from vq.calibration.inputs import geometry_key, parts_of, rows_of
from vq.calibration.stages import Stage
from vq.calibration.statistics import Statistics
from vq.calibration.streams import Stream, Streams, leave
from vq.distributed import ranks, together
from vq.errors import ConfigError
from vq.recipe.selection import Selected

__all__ = ["Gatherer", "Group", "is_looked_up"]


@dataclass(frozen=True, eq=False)
class Group:
    """Layers whose every call is with one and the same tensor.

    Attributes
    ----------
    layers : list of Selected
    calls : int
        How many there were in a run.
    batch : int
        Which run that was.
    """

    layers: list[Selected]
    calls: int
    batch: int


@dataclass(frozen=True, eq=False)
class Gatherer:
    """Gathers statistics stage by stage.

    Attributes
    ----------
    streams : Streams
        Statistics compare the two models if both are there.
    off : callable
        Gives a context in which activations are not quantised.
    dtype : torch.dtype
        Of the sums.
    """

    streams: Streams
    off: Callable[[], AbstractContextManager[Any]]
    dtype: torch.dtype

    def groups(self, stage: Stage, layers: Sequence[Selected]) -> list[Group]:
        """Layers of a stage by their inputs, in the order they run; all are unquantised yet.

        Embeddings are left out: no input mixes their rows.
        """
        wanted = {layer.name: layer for layer in layers if not is_looked_up(layer)}
        seen: dict[str, list[_Key]] = {}
        for batch in range(len(self.streams.changed.runner)):
            new = _Calls(batch)
            handles = [
                handle
                for name, layer in wanted.items()
                if name not in seen
                for handle in _listen(layer.modules, partial(new.note, name))
            ]
            with _removing(handles), self.off():
                self.streams.changed.run(stage, batch)
            seen |= new.seen
            if len(seen) == len(wanted):
                break
        found: dict[tuple[_Key, ...], list[Selected]] = {}
        for name, one in seen.items():
            found.setdefault(tuple(one), []).append(wanted[name])
        return [Group(group, len(keys), keys[0].batch) for keys, group in found.items()]

    def gather(self, stage: Stage, group: Group) -> list[Statistics]:
        """Sum over all batches of all processes; one for every part of :func:`parts_of`.

        Where the two models give the layer different tokens, as routers do, the inputs of the
        unquantised one are left out: the sums have no ``cross``.

        Raises
        ------
        ConfigError
            If an input is not finite.
        """
        statistics = self._summed(stage, group, self.streams.reference)
        if statistics is None:
            statistics = self._summed(stage, group, None)
            assert statistics is not None
        return statistics

    def _summed(
        self, stage: Stage, group: Group, reference: Stream | None
    ) -> list[Statistics] | None:
        """Sums beside those of another stream; None if it gives other tokens in any process."""
        first = group.layers[0]
        changed = self.streams.changed
        statistics = [
            Statistics.empty(
                first.geometry.I,
                cross=reference is not None,
                dtype=self.dtype,
                device=changed.runner.device,
            )
            for _ in range(parts_of(first.modules[0]))
        ]
        apart = False
        with together():  # before the sums are added up, which all must take part in
            for batch in range(len(changed.runner)):
                expected: list[list[Tensor]] = []
                if reference is not None:
                    self._each_call(reference, stage, group, batch, expected.append)
                given = f"batch {batch + 1}, {shapes_of(changed.runner.batches[batch])},"
                wanted = None if reference is None else expected
                sums = _Sums(first.name, given, statistics, wanted)
                self._each_call(changed, stage, group, batch, sums.add)
                apart = sums.apart
                if apart:
                    break
        if any(distributed.gather(apart)):
            return None
        for one in statistics:
            _sum_over_ranks(one)
        return statistics

    def _each_call(
        self,
        stream: Stream,
        stage: Stage,
        group: Group,
        batch: int,
        take: Callable[[list[Tensor]], None],
    ) -> None:
        """Hand the rows of every call in a run to ``take``."""
        mask = stream.runner.mask(batch)
        # A loop may take as many turns as its inputs are long.
        alike = stage.place is not None or stream.runner.alike(batch, group.batch)

        def heard(module: nn.Module, x: Tensor) -> None:
            take([rows.clone() for rows in rows_of(module, x, mask)])
            if group.calls == 1 and alike:
                leave()

        modules = _twins(group.layers[0], self.streams.changed.runner.model, stream.runner.model)
        with _removing(_listen(modules, heard)):
            stream.run(stage, batch)


class _Key(NamedTuple):
    """What a layer was called with; equal if the rows of the call are."""

    batch: int
    given: tuple[object, ...]


class _Calls:
    """Notes the calls of layers in one run."""

    def __init__(self, batch: int) -> None:
        self.seen: dict[str, list[_Key]] = {}
        self._batch = batch
        self._alive: list[Tensor] = []  # so that no two inputs have one address in turn

    def note(self, name: str, module: nn.Module, x: Tensor) -> None:
        self._alive.append(x)
        version = 0 if x.is_inference() else x._version
        key = _Key(self._batch, (id(x), version, *geometry_key(module)))
        self.seen.setdefault(name, []).append(key)


class _Sums:
    """Adds the calls of one run to statistics, each beside the same call of the other model."""

    def __init__(
        self,
        layer: str,
        batch: str,
        statistics: list[Statistics],
        expected: list[list[Tensor]] | None,
    ) -> None:
        self._layer, self._batch = layer, batch
        self._statistics, self._expected = statistics, expected
        self._count = 0
        self._differ = False

    @property
    def apart(self) -> bool:
        """Whether the other model has called the layer with other tokens, or more often."""
        return self._differ or (self._expected is not None and self._count != len(self._expected))

    def add(self, rows: list[Tensor]) -> None:
        others: Sequence[Tensor | None] = [None] * len(rows)
        if self._expected is not None:
            others = self._expected[self._count] if self._count < len(self._expected) else []
            shapes = [None if y is None else y.shape for y in others]
            self._differ = self._differ or shapes != [x.shape for x in rows]
        self._count += 1
        if self._differ:
            return
        for sums, x, y in zip(self._statistics, rows, others, strict=True):
            try:
                sums.add(x, y)
            except ConfigError as error:
                raise ConfigError(
                    f"layer {self._layer!r}: {error}; look at {self._batch} and the weights"
                ) from error


def is_looked_up(layer: Selected) -> bool:
    """Whether a weight is that of an embedding, perhaps tied to others."""
    return layer.geometry.op == "embedding"


def _twins(layer: Selected, home: nn.Module, model: nn.Module) -> Sequence[nn.Module]:
    """Modules of a model that stand where those of a layer do in the model it was selected in."""
    if model is home:
        return layer.modules
    held = set(layer.modules)
    return [model.get_submodule(name) for name, module in home.named_modules() if module in held]


def _listen(modules: Sequence[nn.Module], heard: Callable[[nn.Module, Tensor], None]) -> list[Any]:
    """Call ``heard(module, input)`` before each of a layer's modules runs."""

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        heard(module, args[0] if args else next(iter(kwargs.values())))

    return [m.register_forward_pre_hook(hook, with_kwargs=True) for m in modules]


@contextmanager
def _removing(handles: list[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _sum_over_ranks(statistics: Statistics) -> None:
    if ranks() == 1:
        return
    tokens = torch.tensor([statistics.tokens], device=statistics.hessian.device)
    for tensor in (statistics.hessian, statistics.cross, tokens):
        if tensor is not None:
            dist.all_reduce(tensor)
    statistics.tokens = int(tokens)
