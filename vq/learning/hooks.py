"""Rules in other people's trainers: a callback for transformers, and one for Lightning.

The trainer keeps its loop, optimiser and schedule. transformers clips gradients before the rules
see them, Lightning afterwards.
"""

import importlib
import os
from typing import Any

import torch

from vq.errors import ConfigError, ResumeError
from vq.learning.rates import Rates
from vq.learning.rules.driver import Rules
from vq.learning.rules.rule import RuleSettings

__all__ = ["lightning_callback", "transformers_callback"]

#: Name of the rules' state in a checkpoint of transformers.
FILE = "rules.pt"


def transformers_callback(*settings: RuleSettings, rates: Rates | None = None) -> Any:
    """Make a ``transformers.TrainerCallback`` that drives rules.

    Their state is saved with every checkpoint of the trainer and read when it resumes. The
    attribute ``rules`` is the :class:`~vq.learning.rules.driver.Rules`, from the start of training.

    Parameters
    ----------
    *settings : RuleSettings
        Such as ``Clamping(), vq.Freezing()``.
    rates : Rates, optional
        What rules keep to that train tensors of their own.

    Raises
    ------
    ConfigError
        If transformers is not installed.
    """
    base = _require("transformers", "lm").TrainerCallback

    class RulesCallback(base):  # type: ignore[misc, valid-type]
        def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            self.rules = Rules(given["model"], settings, state.max_steps, rates)
            if state.global_step:
                self.rules.load_state_dict(_read(_place(args, state)))

        def on_epoch_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            self.rules.start_epoch()

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            self.rules.before_step()

        def on_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            self.rules.after_step()

        def on_save(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            if state.is_world_process_zero:
                torch.save(self.rules.state_dict(), _place(args, state))

        def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            self.rules.close()

    return RulesCallback()


def lightning_callback(*settings: RuleSettings, rates: Rates | None = None) -> Any:
    """Make a ``lightning.pytorch.Callback`` that drives rules, for one optimiser.

    Their state is in the trainer's checkpoints, and what they tell goes to its loggers after every
    epoch, as ``RULE/NUMBER``. The attribute ``rules`` is the
    :class:`~vq.learning.rules.driver.Rules`, from the start of training.

    Parameters
    ----------
    *settings : RuleSettings
    rates : Rates, optional
        As for :func:`transformers_callback`.

    Raises
    ------
    ConfigError
        If Lightning is not installed.
    """
    base = _require("lightning.pytorch", "lightning").Callback

    class RulesCallback(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            self._loaded: dict[str, Any] = {}
            self._stepped = False

        def on_train_start(self, trainer: Any, module: Any) -> None:
            self.rules = Rules(module, settings, trainer.estimated_stepping_batches, rates)
            if self._loaded:
                self.rules.load_state_dict(self._loaded)

        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            self.rules.start_epoch()

        def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
            self.rules.before_step()
            self._stepped = True

        def on_train_batch_end(self, trainer: Any, module: Any, *batch: Any) -> None:
            if self._stepped:  # not while gradients of several batches add up
                self.rules.after_step()
                self._stepped = False

        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            for rule, numbers in self.rules.telemetry().items():
                module.log_dict({f"{rule}/{name}": float(x) for name, x in numbers.items()})

        def on_train_end(self, trainer: Any, module: Any) -> None:
            self.rules.close()

        def state_dict(self) -> dict[str, Any]:
            # A trainer that has only validated may write a checkpoint, too.
            return self.rules.state_dict() if hasattr(self, "rules") else self._loaded

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self._loaded = state

    return RulesCallback()


def _require(module: str, extra: str) -> Any:
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ConfigError(
            f"a callback for {package}: package {package!r} must be installed, not absent; "
            f"run: pip install 'signbook[{extra}]'"
        ) from error


def _place(args: Any, state: Any) -> str:
    """Where the rules' state lies in the checkpoint of the present step."""
    return os.path.join(args.output_dir, f"checkpoint-{state.global_step}", FILE)


def _read(path: str) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ResumeError(
            f"{path}: the state of the rules must be in the checkpoint, but it is not; resume "
            "one that was saved with this callback"
        ) from error
    return state
