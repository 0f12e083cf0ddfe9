"""One set of modules, two sets of weights."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from vq.recipe.selection import Selected

__all__ = ["Weights"]


class Weights:
    """Weights of a stage's layers in both models; the quantised ones are in place by default."""

    def __init__(self, layers: Sequence[Selected]) -> None:
        self._parameters: dict[str, nn.Parameter] = {}
        for layer in layers:
            weight = layer.modules[0].weight
            assert isinstance(weight, nn.Parameter)
            self._parameters[layer.name] = weight
        self._original = {name: p.data for name, p in self._parameters.items()}
        self._current = dict(self._original)

    def original(self, name: str) -> Tensor:
        """Unquantised weight of a layer."""
        return self._original[name]

    def current(self, name: str) -> Tensor:
        """What is used now of a layer's weight, or of another parameter."""
        return self._current[name]

    def split(self, name: str, parameter: nn.Parameter) -> None:
        """Let another parameter differ, too: what it holds from now on is a copy."""
        self._parameters[name], self._original[name] = parameter, parameter.data
        self._current[name] = parameter.data = parameter.data.clone()

    def put(self, name: str, weight: Tensor) -> None:
        """Make a layer's quantised weight known and used."""
        self._current[name] = self._parameters[name].data = weight

    @contextmanager
    def unquantised(self) -> Iterator[None]:
        """Use the unquantised weights."""
        self._use(self._original)
        try:
            yield
        finally:
            self._use(self._current)

    def _use(self, weights: dict[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.data = weights[name]
