"""Rules at work together, in whatever loop trains the model."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vq import distributed
from vq.errors import ConfigError
from vq.formats.model import compressed_layers
from vq.learning.rates import CosineAdam, Rates
from vq.learning.rules.rule import Rule, RuleSettings, Run

__all__ = ["Rules"]


class Rules:
    """Starts rules on a model and drives them.

    Call :meth:`before_step` and :meth:`after_step` around every step of the optimiser, and
    :meth:`close` in the end. Tensors that rules train beside the model's have an optimiser here.

    Parameters
    ----------
    model : nn.Module
        Compressed; not wrapped for several processes.
    settings : iterable of RuleSettings
        Rules act in this order.
    total_steps : int
        Optimiser steps of the run.
    rates : Rates, optional
        What rules keep to that train tensors of their own. Nobody scales latents here, so
        ``alpha`` is what they were scaled by: usually 1.

    Raises
    ------
    ConfigError
        If the run has no end, or two rules have one name.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: Iterable[RuleSettings],
        total_steps: float,
        rates: Rates | None = None,
    ) -> None:
        if not 1 <= total_steps < math.inf:
            raise ConfigError(f"total_steps must be positive and finite, not {total_steps!r}")
        total = int(total_steps)
        run = Run(model, list(compressed_layers(model)), total, rates or Rates())
        self._model = model
        self._rules: dict[str, Rule] = {}
        self._step = 0
        try:
            for own in settings:
                rule = own.start(run)
                if rule.name in self._rules:
                    rule.close()
                    raise ConfigError(
                        f"rules must have a name each, but two are {rule.name!r}; give one of them "
                        "another name, or leave it out"
                    )
                self._rules[rule.name] = rule
            groups = [group for rule in self._rules.values() for group in rule.parameter_groups()]
        except BaseException:
            self.close()
            raise
        self._own = [tensor for group in groups for tensor in group["params"]]
        self._optimizer = CosineAdam(groups, total) if self._own else None

    @property
    def own(self) -> list[Tensor]:
        """Tensors that rules train beside the model's."""
        return self._own

    def start_epoch(self) -> None:
        """Begin to count what is told per epoch."""
        for rule in self._rules.values():
            rule.start_epoch()

    def before_step(self) -> None:
        """Complete the gradients, after the last backward pass of a step."""
        distributed.average_([tensor.grad for tensor in self._own if tensor.grad is not None])
        for rule in self._rules.values():
            penalty = rule.penalty(self._step)
            if penalty is not None:
                self._add_gradient(penalty)
        for rule in self._rules.values():
            rule.before_step(self._step)

    def after_step(self) -> None:
        """Let the rules act on the weights that the optimiser's step has left."""
        if self._optimizer is not None:
            self._optimizer.step(self._step)
            self._optimizer.zero_grad()
        self._step += 1
        for rule in self._rules.values():
            rule.after_step(self._step)

    def telemetry(self) -> dict[str, Mapping[str, float]]:
        """Numbers of every rule that has any, by its name."""
        told = {name: rule.telemetry() for name, rule in self._rules.items()}
        return {name: numbers for name, numbers in told.items() if numbers}

    def note(self) -> str:
        """Words of all rules for the progress bar."""
        return "  ".join(filter(None, (rule.note() for rule in self._rules.values())))

    def state_dict(self) -> dict[str, Any]:
        """Return what the rules must know to continue; the weights are the model's."""
        return {
            "step": self._step,
            "optimizer": None if self._optimizer is None else self._optimizer.state_dict(),
            "rules": {name: rule.state_dict() for name, rule in self._rules.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state_dict` gave.

        Raises
        ------
        ConfigError
            If it was given by other rules.
        """
        if state["rules"].keys() != self._rules.keys():
            raise ConfigError(
                f"state must be of the rules {', '.join(self._rules)}, not of "
                f"{', '.join(state['rules'])}; give the rules that it was saved with"
            )
        self._step = state["step"]
        if self._optimizer is not None:
            self._optimizer.load_state_dict(state["optimizer"])
        for name, rule in self._rules.items():
            rule.load_state_dict(state["rules"][name])

    def close(self) -> None:
        """Take the rules off the model; what they changed stays."""
        for rule in self._rules.values():
            rule.close()

    def _add_gradient(self, penalty: Tensor) -> None:
        """Add to the gradients by hand: nothing that waits for a backward pass is to wake up."""
        tensors = [p for p in self._model.parameters() if p.requires_grad] + self._own
        grads = torch.autograd.grad(penalty, tensors, allow_unused=True)
        for tensor, grad in zip(tensors, grads, strict=True):
            if grad is not None:
                tensor.grad = grad if tensor.grad is None else tensor.grad + grad
