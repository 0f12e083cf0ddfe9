"""The training loop, and the state that a checkpoint must hold to continue it."""

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from vq import distributed
from vq.calibration.batches import Batch, device_of, each, on_batch, shapes_of, tensors_of
from vq.errors import ConfigError, TrainingError
from vq.formats.model import compressed_layers
from vq.learning import randomness
from vq.learning.checkpoint import Checkpoints
from vq.learning.objective import BatchLoss
from vq.learning.rates import CosineAdam, Rates, parameter_groups, scale_latents_
from vq.learning.record import FinetuneResult, RunLog, entry
from vq.learning.rules.driver import Rules
from vq.learning.rules.rule import RuleSettings
from vq.learning.scalars import Scalars
from vq.progress import Advance, bar

__all__ = ["Training", "TrainingPlan"]

#: Optimiser steps between two looks at the rules for the progress display.
_NOTE_STEPS = 20


@dataclass(frozen=True)
class TrainingPlan:
    """Settings of a run; :func:`vq.finetune_` explains them."""

    epochs: int
    batches: int
    accumulate: int
    rates: Rates
    rules: Sequence[RuleSettings]
    fixed_signs: bool
    amp: str | None
    clip_norm: float | None
    checkpoint_steps: int

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run; the last of an epoch may hold fewer batches."""
        return self.epochs * math.ceil(self.batches / self.accumulate)


class Training:
    """One run of :func:`vq.finetune_`.

    Parameters
    ----------
    model : nn.Module
        Compressed.
    loader : iterable of batches
    plan : TrainingPlan
    objective : BatchLoss
    checkpoints : Checkpoints or None
    tensorboard : path or None
        Folder for scalars.
    settings : dict
        For the record.
    """

    def __init__(
        self,
        model: nn.Module,
        loader: Iterable[Batch],
        plan: TrainingPlan,
        objective: BatchLoss,
        checkpoints: Checkpoints | None,
        tensorboard: str | os.PathLike[str] | None,
        settings: dict[str, Any],
    ) -> None:
        self._model = model
        self._loader = loader
        self._plan = plan
        self._objective = objective
        self._checkpoints = checkpoints
        self._tensorboard = tensorboard
        self._device = device_of(model)
        groups = parameter_groups(model, plan.rates, fixed_signs=plan.fixed_signs)
        if not groups:
            raise ConfigError(
                "model must hold something to train, not nothing; plain VQ with a fixed codebook "
                "and no biases or norms stays as it is"
            )
        total = plan.total_steps
        self._optimizer = CosineAdam(groups, total)
        self._rules = Rules(model, plan.rules, total, plan.rates)
        self._generators = randomness.generators_of(loader)
        self._result = FinetuneResult(settings=settings)
        self._log: RunLog | None = None
        self._scalars: Scalars | None = None
        self._note = ""
        # Position: epoch, batches of it that are done, their losses, random state at its start.
        self._epoch = self._done = 0
        self._losses: list[float] = []
        self._epoch_start: dict[str, Any] = {}
        self._random: dict[str, Any] | None = None
        self._good: dict[str, Any] = {}
        self._good_own: list[Tensor] = []
        self._good_step = 0

    def run(self, *, resume: bool, progress: bool) -> FinetuneResult:
        """Train to the end; see :func:`vq.finetune_`."""
        try:
            if resume and self._checkpoints is not None:
                self._resume(self._checkpoints)
            with distributed.together():
                if distributed.is_main():
                    self._open_logs()
            if not self._result.steps:  # a checkpoint's are scaled already
                scale_latents_(compressed_layers(self._model), self._plan.rates.alpha)
            show = progress and distributed.is_main()
            self._remember()
            self._model.train()
            with (
                distributed.wrap(self._model) as wrapped,
                bar("fine-tuning", self._plan.total_steps, enabled=show) as advance,
            ):
                advance(self._result.steps)
                while self._epoch < self._plan.epochs:
                    self._run_epoch(wrapped, advance)
                    self._epoch += 1
            self._settle()
        finally:
            if self._scalars is not None:
                self._scalars.close()
            self._rules.close()
            self._optimizer.zero_grad()
            self._model.eval()
        return self._result

    def _resume(self, checkpoints: Checkpoints) -> None:
        """Go to where the newest checkpoint is, if there is one."""
        state = None
        with distributed.together():
            state = checkpoints.latest()
        distributed.require_same("checkpoint", None if state is None else state["step"])
        if state is not None:
            self._load(state)

    def _open_logs(self) -> None:
        if self._checkpoints is not None:
            self._log = RunLog(self._checkpoints.folder, self._result.steps)
        if self._tensorboard is not None:
            self._scalars = Scalars(self._tensorboard, self._result.steps)

    def _run_epoch(self, wrapped: nn.Module, advance: Advance) -> None:
        plan, result = self._plan, self._result
        batches = self._batches()
        if not self._done:
            self._rules.start_epoch()
        while group := list(islice(batches, plan.accumulate)):
            loss = self._step(wrapped, group)
            result.steps += 1
            self._done += len(group)
            self._losses.append(loss)
            if self._scalars is not None:
                self._scalars.write(result.steps, loss)
            if result.steps % plan.checkpoint_steps == 0 or result.steps == plan.total_steps:
                self._checkpoint()
            if result.steps % _NOTE_STEPS == 0:
                self._note = self._noted(loss)
            advance(note=self._note)
        if self._done < plan.batches:
            raise ConfigError(
                f"training data must give {plan.batches} batches in every pass, as their length "
                f"says, not {self._done} in pass {self._epoch + 1}"
            )
        told = self._rules.telemetry()
        result.add_epoch(math.fsum(self._losses) / len(self._losses), told)
        with distributed.together():
            self._write_log("epoch", told)
        self._done, self._losses = 0, []
        self._note = self._noted(result.losses[-1])
        advance(0, note=self._note)

    def _batches(self) -> Iterator[Batch]:
        """Yield what is left of the epoch, in the order that it would have had."""
        if self._random is None:
            self._epoch_start = randomness.capture(self._generators)
        else:
            randomness.restore(self._epoch_start, self._generators)
        for sampler in ("sampler", "batch_sampler"):
            set_epoch = getattr(getattr(self._loader, sampler, None), "set_epoch", None)
            if callable(set_epoch):
                set_epoch(self._epoch)
        batches = islice(each(self._loader, "training"), self._plan.batches)
        if self._random is not None:
            # Loaders cannot jump: draw again what was done, then forget what that changed.
            for _ in islice(batches, self._done):
                pass
            randomness.restore(self._random, self._generators)
            self._random = None
        return batches

    def _step(self, wrapped: nn.Module, group: list[Batch]) -> float:
        """Take one optimiser step; return the mean loss of the group over all processes."""
        plan = self._plan
        self._optimizer.zero_grad()
        total = torch.zeros((), device=self._device)
        for i, batch in enumerate(group):
            last = i == len(group) - 1
            here = on_batch(self._done + i + 1, batch, "training")
            with here, nullcontext() if last else distributed.unsynchronised(wrapped):
                with torch.autocast(self._device.type, torch.bfloat16, enabled=plan.amp == "bf16"):
                    loss = self._objective(wrapped, batch, self._device) / len(group)
                loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach().float()
        mean = distributed.mean(total)
        if not math.isfinite(mean):
            for i, batch in enumerate(group):
                _require_finite(self._done + i + 1, batch)
            self._diverge(f"its loss finite, not {mean}")
        if self._result.steps % plan.checkpoint_steps == 0:
            self._remember()  # these weights have just given a finite loss
        self._rules.before_step()
        if plan.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._model.parameters(), plan.clip_norm)
        self._optimizer.step(self._result.steps)
        self._rules.after_step()
        return mean

    def _remember(self) -> None:
        """Keep the model's weights in memory, to return to if training diverges."""
        self._settle()
        state = self._model.state_dict()
        self._good = {
            name: value.detach().clone() if isinstance(value, Tensor) else value
            for name, value in state.items()
        }
        self._good_own = [tensor.detach().clone() for tensor in self._rules.own]
        self._good_step = self._result.steps

    def _settle(self) -> None:
        """Make the model one that may be kept: equal on all processes, and finite."""
        distributed.average_norms_(self._model)
        floats = (t for t in self._model.state_dict().values() if isinstance(t, Tensor))
        if not all(bool(torch.isfinite(t).all()) for t in floats if t.is_floating_point()):
            self._diverge("its weights finite, not NaN or infinite")

    def _diverge(self, what: str) -> None:
        step = self._result.steps
        if not self._good:
            raise TrainingError(f"training must start with {what}")
        self._model.load_state_dict(self._good)
        for tensor, good in zip(self._rules.own, self._good_own, strict=True):
            tensor.data.copy_(good)
        remedy = "lower the rates, or set clip_norm" if step else "look at the targets and the loss"
        raise TrainingError(
            f"training must keep {what}, after {step} steps; the model is back at step "
            f"{self._good_step}: {remedy}"
        )

    def _checkpoint(self) -> None:
        if self._checkpoints is None:
            return
        self._settle()
        random = distributed.gather(randomness.capture(self._generators))
        starts = distributed.gather(self._epoch_start)
        drawn = distributed.gather(self._drawn())
        with distributed.together():
            if distributed.is_main():
                # The line first: every line up to a checkpoint is then there when it is.
                self._write_log("checkpoint", self._rules.telemetry())
                self._checkpoints.save(
                    self._result.steps,
                    {
                        "step": self._result.steps,
                        "epoch": self._epoch,
                        "done": self._done,
                        "losses": self._losses,
                        "random": random,
                        "epoch_start": starts,
                        "drawn": drawn,
                        "result": self._result.to_json(),
                        "model": self._model.state_dict(),
                        "optimizer": self._optimizer.state_dict(),
                        "rules": self._rules.state_dict(),
                    },
                )

    def _load(self, state: dict[str, Any]) -> None:
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._rules.load_state_dict(state["rules"])
        self._result = FinetuneResult.from_json(state["result"])
        self._epoch, self._done, self._losses = state["epoch"], state["done"], state["losses"]
        self._random = state["random"][distributed.rank()]
        self._epoch_start = state["epoch_start"][distributed.rank()]
        if (drawn := state["drawn"][distributed.rank()]) is not None:
            self._loader.take(drawn)  # type: ignore[attr-defined]

    def _drawn(self) -> Any:
        """What a loader says that the rest of the epoch cannot draw again."""
        own = getattr(self._loader, "drawn", None)
        return own() if callable(own) else None

    def _write_log(self, event: str, told: Mapping[str, Mapping[str, float]]) -> None:
        if self._log is not None:
            mean = math.fsum(self._losses) / len(self._losses)
            self._log.write(entry(event, self._result.steps, self._epoch + 1, mean, told))
        if self._scalars is not None:
            self._scalars.write_rules(self._result.steps, told)

    def _noted(self, loss: float) -> str:
        return "  ".join(filter(None, (f"loss {loss:.4f}", self._rules.note())))


def _require_finite(number: int, batch: Batch) -> None:
    floats = (t for t in tensors_of(batch) if t.is_floating_point())
    if not all(bool(torch.isfinite(t).all()) for t in floats):
        raise ConfigError(
            f"training batch {number}, {shapes_of(batch)}, must be finite, not NaN or infinite"
        )
