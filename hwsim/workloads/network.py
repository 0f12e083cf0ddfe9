"""A workload: layers in order, and how much they are together."""

import itertools
from collections import Counter
from dataclasses import dataclass

from hwsim.workloads.layer import INPUT, WorkloadLayer
from vq.container import ConfigError, bulleted

__all__ = ["Workload"]

_EARLIER = "a layer before it, alone or in the same block"


@dataclass(frozen=True)
class Workload:
    """Layers of a network in the order in which they run.

    Attributes
    ----------
    name : str
    layers : tuple of WorkloadLayer
    trained : bool
        Whether trained weights of these layers exist; if not, only shapes are known.
    source : str
        Where the shapes are from.

    Raises
    ------
    ConfigError
        If there are no layers, names repeat, or a layer refers to one that is not before it or
        has other weights: all problems in one message.

    Examples
    --------
    >>> block = [WorkloadLayer(f"block.{{}}.{n}", "linear", 8, 8, count=2) for n in ("a", "b")]
    >>> [layer.name for layer in Workload("two", tuple(block)).expanded().layers]
    ['block.0.a', 'block.0.b', 'block.1.a', 'block.1.b']
    """

    name: str
    layers: tuple[WorkloadLayer, ...]
    trained: bool = False
    source: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        problems = [] if self.layers else ["layers must be at least one, not none"]
        seen: dict[str, WorkloadLayer] = {}
        for layer in self.layers:
            problems += [
                f"layer {layer.name!r}: source must be {_EARLIER}, not {source!r}"
                for source in layer.sources
                if source != INPUT and not _refers(layer, seen.get(source))
            ]
            problems += _sharing_problems(layer, seen.get(layer.shares))
            seen[layer.name] = layer
        if INPUT in seen:
            problems.append(f"layer name must not be {INPUT!r}, which names the network's input")
        names = Counter(layer.repetition(n).name for layer in self.layers for n in _times(layer))
        problems += [
            f"layer {n!r} must appear once, not {c} times" for n, c in names.items() if c > 1
        ]
        if problems:
            raise ConfigError(bulleted(f"workload {self.name!r}", problems))

    @property
    def macs(self) -> int:
        """Products of all repetitions."""
        return sum(layer.count * layer.macs for layer in self.layers)

    @property
    def matmul_macs(self) -> int:
        """Those of them that have no weights: products of two activations."""
        return sum(layer.count * layer.macs for layer in self.layers if layer.op == "matmul")

    @property
    def weights(self) -> int:
        """Weights of all matrices, shared ones once."""
        return sum(layer.count * layer.weights for layer in self.layers if not layer.shares)

    @property
    def parameters(self) -> int:
        """All parameters: weights and what is kept."""
        return sum(layer.count * layer.parameters for layer in self.layers)

    @property
    def activation_bytes(self) -> int:
        """Activations that all repetitions read and give, int8."""
        return sum(layer.count * layer.activation_bytes for layer in self.layers)

    def expanded(self) -> "Workload":
        """Every repetition as a layer of its own, in the order in which they run."""
        layers = [
            layer.repetition(number)
            for block in self._blocks()
            for number in range(block[0].count)
            for layer in block
        ]
        return Workload(self.name, tuple(layers), self.trained, self.source)

    def once(self) -> "Workload":
        """The first repetition of every block; multiply what it costs by the counts."""
        layers = (layer.repetition(0) for layer in self.layers)
        return Workload(self.name, tuple(layers), self.trained, self.source)

    def _blocks(self) -> list[list[WorkloadLayer]]:
        """Layers that repeat together."""
        grouped = itertools.groupby(enumerate(self.layers), _block)
        return [[layer for _, layer in block] for _, block in grouped]


def _block(numbered: tuple[int, WorkloadLayer]) -> tuple[int, str, int]:
    number, layer = numbered
    before, braces, _ = layer.name.partition("{}")
    return (layer.count, before, -1) if braces else (1, "", number)


def _times(layer: WorkloadLayer) -> range:
    return range(layer.count)


def _refers(layer: WorkloadLayer, owner: WorkloadLayer | None) -> bool:
    """Whether a layer can refer to another: it is there, and alone or in the same block."""
    if owner is None:
        return False
    same = _block((0, owner)) == _block((0, layer))
    return owner.count == 1 or same


def _sharing_problems(layer: WorkloadLayer, owner: WorkloadLayer | None) -> list[str]:
    if not layer.shares:
        return []
    if owner is None or owner.shares or not _refers(layer, owner):
        return [
            f"layer {layer.name!r}: shares must be {_EARLIER} with weights of its own, "
            f"not {layer.shares!r}"
        ]
    if owner.weight_shape != layer.weight_shape:
        return [
            f"layer {layer.name!r}: weights must be of shape {list(owner.weight_shape)} like those "
            f"of {layer.shares!r}, not {list(layer.weight_shape)}"
        ]
    return []
