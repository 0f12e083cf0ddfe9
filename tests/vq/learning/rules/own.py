"""Rules from outside the package, for the tests: they know :mod:`vq.learning.rules.rule` alone."""

from dataclasses import dataclass

import torch
from torch import nn

from vq.learning.rules.rule import Rule


@dataclass(frozen=True)
class Shrinking:
    """L1 on codebooks, whose average over steps it keeps; counts what it sees."""

    weight: float

    def start(self, run):
        return Shrinker(self.weight, run.layers)


class Shrinker(Rule):
    name = "shrinking"

    def __init__(self, weight, layers):
        self._weight = weight
        self._books = [layer.codebook for layer in layers if layer.codebook is not None]
        self._means = [book.detach().clone() for book in self._books]

    def penalty(self, step):
        return self._weight * sum(book.abs().sum() for book in self._books)

    def after_step(self, step):
        for mean, book in zip(self._means, self._books, strict=True):
            mean.lerp_(book.detach(), 0.1)

    def telemetry(self):
        return {"mean": float(torch.stack([mean.mean() for mean in self._means]).mean())}

    def note(self):
        return "shrinking"

    def state_dict(self):
        return {"means": self._means}

    def load_state_dict(self, state):
        for mean, own in zip(self._means, state["means"], strict=True):
            mean.copy_(own)


@dataclass(frozen=True)
class Gaining:
    """A gain on every layer's output, trained at a rate of its own."""

    rate: float

    def start(self, run):
        return Gain(self.rate, run.layers)


class Gain(Rule):
    name = "gain"

    def __init__(self, rate, layers):
        self.steps = []
        self._rate = rate
        self._gains = [nn.Parameter(torch.ones(())) for _ in layers]
        self._hooks = [
            layer.module.register_forward_hook(lambda module, inputs, out, gain=gain: out * gain)
            for layer, gain in zip(layers, self._gains, strict=True)
        ]

    def parameter_groups(self):
        return [{"params": self._gains, "lr": self._rate}]

    def before_step(self, step):
        self.steps.append(step)
        assert all(gain.grad is not None for gain in self._gains)

    def telemetry(self):
        return {f"{i}": float(gain.detach()) for i, gain in enumerate(self._gains)}

    def state_dict(self):
        return {"gains": [gain.detach() for gain in self._gains]}

    def load_state_dict(self, state):
        with torch.no_grad():
            for gain, own in zip(self._gains, state["gains"], strict=True):
                gain.copy_(own)

    def close(self):
        for hook in self._hooks:
            hook.remove()
