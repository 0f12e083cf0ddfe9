"""``signbook finetune --method``: the methods that learn assignments."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vq.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    import vq
    from signbook.objectives import Objective

__all__ = ["METHODS", "Learning", "learning_of"]

METHODS = ("vq4dit", "vim-vq", "vq4all")


@dataclass(frozen=True)
class Learning:
    """How a compressed model is trained: by the task and its teacher, or by a method.

    Attributes
    ----------
    name : str or None
        Of the method.
    candidates : int or None
        None is the method's own number.
    given : mapping
        Learning rates that were given, by their names in :class:`vq.Rates`.
    """

    name: str | None
    candidates: int | None
    given: Mapping[str, float]

    def rates(self, *, fixed_signs: bool) -> "vq.Rates":
        """Those of the method, or the default ones, less what was given."""
        import vq

        rates = vq.Rates() if self.name is None else self._module().RATES
        found: vq.Rates = replace(rates, **self.given)
        return replace(found, signs=0.0) if fixed_signs and self.name is not None else found

    def train(
        self,
        network: "nn.Module",
        teacher: "nn.Module",
        objective: "Objective",
        **settings: Any,
    ) -> "vq.FinetuneResult":
        """Train by the method.

        Parameters
        ----------
        network, teacher : nn.Module
            Compressed, and the original.
        objective : Objective
        settings
            ``epochs`` and ``rates``, and what :func:`vq.finetune_` takes.
        """
        if self.candidates is not None:
            settings["n"] = self.candidates
        if self.name == "vim-vq":
            settings["loss"] = objective.distillation_loss
        if self.name == "vq4all":
            settings["loss"] = objective.loss
        learn = getattr(self._module(), f"{self._module_name()}_")
        found: vq.FinetuneResult = learn(network, objective.batches, teacher, **settings)
        return found

    def _module_name(self) -> str:
        assert self.name is not None
        return self.name.replace("-", "_")

    def _module(self) -> Any:
        from importlib import import_module

        return import_module(f"vq.methods.{self._module_name()}")


def learning_of(
    method: str | None,
    candidates: int | None,
    given: Mapping[str, float | None],
    *,
    epochs: int,
    teacher: bool,
) -> Learning:
    """Read the options.

    Raises
    ------
    ConfigError
    """
    from signbook.hints import did_you_mean

    if method is not None and method not in METHODS:
        hint = did_you_mean(method, METHODS)
        raise ConfigError(f"--method must be one of {', '.join(METHODS)}, not {method!r}{hint}")
    if method is None and candidates is not None:
        raise ConfigError("--candidates must come with --method, not without")
    if method is not None and teacher:
        raise ConfigError(f"--teacher must be left out with --method {method}, which has one")
    if method is not None and epochs < 1:
        raise ConfigError(f"--epochs must be positive with --method {method}, not {epochs}")
    return Learning(method, candidates, {k: v for k, v in given.items() if v is not None})
