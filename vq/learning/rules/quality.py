"""Layers that are good already stop learning, so that less is left to train.

After every pass, each compressed layer's output is compared with the original's on the same inputs
of the network, and the weights of the best layers rest until the next pass. What rounds their
inputs goes on learning. Which layers, and by what, is our reading of *selective freezing* in arXiv
2412.06661, whose text does not tell.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vq.errors import ConfigError
from vq.formats.model import CompressedLayer
from vq.learning.rules.rule import Rule, Run

__all__ = ["LayerFreezer", "Quality", "sqnr_db"]

#: Ratio that stands for no error at all, in decibels.
_NONE_DB = 200.0


def sqnr_db(given: Tensor, wanted: Tensor) -> float:
    """Signal to quantisation noise, ``10 log10(sum wanted^2 / sum (given - wanted)^2)``.

    At most 200, which stands for no noise at all.
    """
    signal = float(wanted.double().square().sum())
    noise = float((given.double() - wanted.double()).square().sum())
    if noise <= 0 or signal / noise > 10 ** (_NONE_DB / 10):
        return _NONE_DB
    return 10 * math.log10(max(signal / noise, 10 ** (-_NONE_DB / 10)))


@dataclass(frozen=True)
class Quality:
    """Freeze the best layers after every pass.

    Attributes
    ----------
    share : float
        Of the layers, in [0, 1).
    original : nn.Module
        The model before compression.
    inputs : callable
        ``inputs()`` gives arguments of a few calls of the model; none, and nothing is frozen.
    """

    share: float
    original: nn.Module = field(repr=False, compare=False)
    inputs: Callable[[], Sequence[tuple[Tensor, ...]]] = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise ConfigError(f"share of layers to freeze must be in [0, 1), not {self.share!r}")

    def start(self, run: Run) -> "LayerFreezer":
        """Return the rule at work."""
        return LayerFreezer(run, self)


class LayerFreezer(Rule):
    """Measures layers, and lets the weights of the best ones rest.

    Parameters
    ----------
    run : Run
    settings : Quality
    """

    name = "quality"

    def __init__(self, run: Run, settings: Quality) -> None:
        self._settings, self._model = settings, run.model
        self._layers = {
            layer.weight.geometry.name: layer
            for layer in run.layers
            if any(tensor.requires_grad for tensor in layer.originals)
        }
        self._frozen: list[str] = []
        self._mean = math.nan

    def start_epoch(self) -> None:
        """Measure all layers, and choose anew."""
        calls = self._settings.inputs()
        count = int(self._settings.share * len(self._layers))
        if calls and count:
            found = self._measured(calls)
            self._mean = sum(found.values()) / len(found)
            self._freeze(sorted(found, key=found.__getitem__, reverse=True)[:count])

    def telemetry(self) -> dict[str, float]:
        """How many rest, how many weights learn, and the mean over layers in decibels."""
        learn = [layer for name, layer in self._layers.items() if name not in self._frozen]
        told = {
            "frozen_layers": float(len(self._frozen)),
            "learning_weights": float(sum(layer.weight.geometry.weights for layer in learn)),
        }
        return told if math.isnan(self._mean) else told | {"layer_sqnr_db": self._mean}

    def state_dict(self) -> dict[str, Any]:
        """Which layers rest."""
        return {"frozen": self._frozen, "mean": self._mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let them rest again."""
        self._mean = state["mean"]
        self._freeze(state["frozen"])

    def close(self) -> None:
        """Let all learn again."""
        self._freeze([])

    def _freeze(self, names: list[str]) -> None:
        self._frozen = names
        for name, layer in self._layers.items():
            for tensor in _trained(layer):
                tensor.requires_grad_(name not in names)
                if name in names:
                    tensor.grad = None

    @torch.no_grad()
    def _measured(self, calls: Sequence[tuple[Tensor, ...]]) -> dict[str, float]:
        """Signal to noise of what each layer gives, in decibels."""
        original = self._settings.original
        mine: dict[str, list[Tensor]] = {name: [] for name in self._layers}
        theirs: dict[str, list[Tensor]] = {name: [] for name in self._layers}

        def note(into: list[Tensor]) -> Any:
            return lambda module, args, output: into.append(output)

        handles = []
        for name, layer in self._layers.items():
            handles.append(layer.module.register_forward_hook(note(mine[name])))
            other = original.get_submodule(name)
            handles.append(other.register_forward_hook(note(theirs[name])))
        learns = self._model.training
        try:
            self._model.eval()
            for inputs in calls:
                self._model(*inputs)
                original(*inputs)
        finally:
            self._model.train(learns)
            for handle in handles:
                handle.remove()
        return {
            name: sqnr_db(_joined(mine[name]), _joined(theirs[name]))
            for name in self._layers
            if mine[name] and len(mine[name]) == len(theirs[name])
        }


def _trained(layer: CompressedLayer) -> list[Tensor]:
    """What learns in a layer's weight, its steps among it."""
    return [*layer.originals, *layer.weight.parameters(recurse=False)]


def _joined(outputs: list[Tensor]) -> Tensor:
    return torch.cat([output.flatten() for output in outputs])
