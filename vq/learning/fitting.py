"""One block after the other learns to give what the unquantised model's gives."""

import math
import zlib
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vq import distributed
from vq.calibration.batches import tensors_of
from vq.calibration.stages import Stage, frozen_but, own_parameters
from vq.calibration.streams import Streams
from vq.errors import ConfigError, TrainingError, bulleted
from vq.learning.rates import CosineAdam, Rates, learning, parameter_groups
from vq.learning.rules.clamping import Clamping
from vq.learning.rules.driver import Rules
from vq.learning.rules.rule import RuleSettings
from vq.progress import Advance

__all__ = ["BlockPlan", "BlockResult", "Fitter", "Goal", "held_out_of"]


@dataclass(frozen=True)
class BlockPlan:
    """Settings of a run; :func:`vq.finetune_blocks_` explains them."""

    epochs: int
    rates: Rates
    look_ahead: int
    inputs: str
    fixed_signs: bool
    rules: tuple[RuleSettings, ...]
    seed: int
    held_out: float = 0.0

    def __post_init__(self) -> None:
        problems = []
        if self.epochs < 1:
            problems.append(f"epochs must be positive, not {self.epochs!r}")
        if self.look_ahead < 0:
            problems.append(f"look_ahead must not be negative, not {self.look_ahead!r}")
        if self.inputs not in ("changed", "teacher"):
            problems.append(f"inputs must be 'changed' or 'teacher', not {self.inputs!r}")
        if self.seed < 0:
            problems.append(f"seed must not be negative, not {self.seed!r}")
        if not 0 <= self.held_out < 1:
            problems.append(f"held_out must be at least 0 and below 1, not {self.held_out!r}")
        if problems:
            raise ConfigError(bulleted("block-wise training", problems))


@dataclass(frozen=True)
class BlockResult:
    """How one block went.

    Attributes
    ----------
    name : str
        Of the block; "start" and "end" are what lies around all of them, "model" all there is.
    before, after : float
        Squared error of the outputs in units of the teacher's mean square, over the batches that
        are held out, or over all.
    """

    name: str
    before: float
    after: float


class Fitter:
    """Trains one stage after the other (:mod:`vq.calibration.walk`).

    Parameters
    ----------
    streams : Streams
        The model that learns and, as reference, the teacher.
    plan : BlockPlan
    advance : Advance
        Of a progress bar that counts stages.

    Attributes
    ----------
    results : list of BlockResult
        Of the stages that are done.
    """

    def __init__(self, streams: Streams, plan: BlockPlan, advance: Advance) -> None:
        assert streams.reference is not None
        self.results: list[BlockResult] = []
        self._changed, self._teacher = streams.changed, streams.reference
        self._plan, self._advance = plan, advance
        runner = streams.changed.runner
        self._model, self._chain = runner.model, runner.chain
        self._taught, self._judged = held_out_of(len(runner), plan.held_out)

    def at(self, stage: Stage) -> AbstractContextManager[Any]:
        """Nothing has to be undone behind a stage."""
        return nullcontext()

    def do(self, stage: Stage) -> dict[str, Any]:
        """Train a stage; the state is that of all its modules."""
        self._report(self.fit(stage, self.goal(stage)))
        return {"modules": _copy(self.part(stage)), "result": asdict(self.results[-1])}

    def goal(self, stage: Stage) -> "Goal":
        """What a stage is to give."""
        with distributed.together():
            wanted = self._wanted(stage)
        return Goal(wanted)

    def fit(self, stage: Stage, goal: "Goal") -> BlockResult:
        """Train a stage towards a goal; it stays as it was where that does not help."""
        part, rates = self.part(stage), self._plan.rates
        before = after = self._error(stage, goal)
        start = _copy(part)
        try:
            with learning(part, rates):
                held = own_parameters(self._model, self._chain, stage).values()
                if own := [parameter for parameter in held if parameter.requires_grad]:
                    with frozen_but(self._model, own), torch.enable_grad():
                        self._train(stage, part, own, goal)
            if own:
                after = self._error(stage, goal)
        except BaseException:
            part.load_state_dict(start)
            raise
        if not after < before:
            after = before
            part.load_state_dict(start)
        return BlockResult(stage.name, before, after)

    def use(self, stage: Stage, state: Mapping[str, Any]) -> None:
        """Take what an earlier run has trained."""
        self.part(stage).load_state_dict(state["modules"])
        self._report(BlockResult(**state["result"]))

    def _report(self, result: BlockResult) -> None:
        self.results.append(result)
        self._advance(note=f"{result.name}  error {result.before:.4f} to {result.after:.4f}")

    def _wanted(self, stage: Stage) -> list[list[Tensor]]:
        """What the teacher gives for every batch."""
        outputs = []
        for batch in range(len(self._teacher.runner)):
            found = self._teacher.run(stage, batch, ahead=self._plan.look_ahead)
            outputs.append([self._teacher.runner.keep(t) for t in self._counted(found, batch)])
        return outputs

    def _counted(self, found: Any, batch: int) -> list[Tensor]:
        """Outputs of a run, less those of tokens that do not count."""
        outputs = [t for t in tensors_of(found) if t.is_floating_point()]
        if found is None:
            raise ConfigError(
                f"calibration batch {batch + 1} must run the model's blocks, not be routed past "
                "them; leave it out, or train all blocks at once by vq.finetune_"
            )
        if not outputs:
            raise ConfigError(f"model must give tensors, not {type(found).__name__}")
        mask = self._changed.runner.mask(batch)
        if mask is None:
            return outputs
        return [t[mask] if t.shape[: mask.ndim] == mask.shape else t for t in outputs]

    def _loss(self, stage: Stage, batch: int, goal: "Goal") -> Tensor:
        boundary = self._teacher.boundary if self._plan.inputs == "teacher" else None
        found = self._changed.run(stage, batch, ahead=self._plan.look_ahead, boundary=boundary)
        return goal.error(self._counted(found, batch), batch)

    def _error(self, stage: Stage, goal: "Goal") -> float:
        """Mean loss over the batches that judge, of all processes."""
        with distributed.together():
            losses = [self._loss(stage, batch, goal) for batch in self._judged]
        return distributed.mean(torch.stack(losses).mean())

    def _train(self, stage: Stage, part: nn.Module, own: list[nn.Parameter], goal: "Goal") -> None:
        plan, count = self._plan, len(self._taught)
        total = plan.epochs * count
        groups = parameter_groups(part, plan.rates, fixed_signs=plan.fixed_signs)
        if not groups:
            return
        optimizer = CosineAdam(groups, total)
        rules = Rules(part, [Clamping(), *plan.rules], total, plan.rates)
        # Of its own for every stage, so that a resumed run needs no state of it.
        draw = torch.Generator().manual_seed(zlib.crc32(f"{plan.seed} {stage.name}".encode()))
        try:
            for step in range(total):
                if step % count == 0:
                    order = torch.randperm(count, generator=draw).tolist()
                    rules.start_epoch()
                loss = self._loss(stage, self._taught[order[step % count]], goal)
                if not loss.requires_grad:
                    break  # the stage's layers do not reach its output
                mean = distributed.mean(loss)
                if not math.isfinite(mean):
                    raise TrainingError(
                        f"block-wise training must keep its loss finite, not {mean}, in "
                        f"{stage.name!r}, which is back as it was: lower the rates"
                    )
                loss.backward()  # type: ignore[no-untyped-call]
                distributed.average_([p.grad for p in own if p.grad is not None])
                rules.before_step()
                optimizer.step(step)
                rules.after_step()
                part.zero_grad()
        finally:
            rules.close()
            part.zero_grad()

    def part(self, stage: Stage) -> nn.Module:
        """The modules of a stage that learn."""
        if self._chain is None:
            return self._model
        if stage.place is not None:
            return self._chain.blocks[stage.place]
        return nn.ModuleList(self._model.get_submodule(name) for name in stage.layers)


class Goal:
    """What the teacher gives behind a stage, for every batch, and how far others are from it."""

    def __init__(self, wanted: list[list[Tensor]]) -> None:
        self._wanted = wanted
        squares = [
            torch.stack([one.float().square().mean() for one in outputs])
            for outputs in zip(*wanted, strict=True)
        ]
        # A tensor of zeros is left as it is.
        self._sizes = [distributed.mean(each.mean()) or 1.0 for each in squares]

    def error(self, outputs: list[Tensor], batch: int) -> Tensor:
        """Mean over tensors of their squared error, relative to all batches' mean square."""
        errors = [
            nn.functional.mse_loss(one.float(), wanted.to(one.device).float()) / size
            for one, wanted, size in zip(outputs, self._wanted[batch], self._sizes, strict=True)
        ]
        return torch.stack(errors).mean()


def held_out_of(count: int, share: float) -> tuple[list[int], list[int]]:
    """Which of ``count`` batches teach, on every process equally many, and which judge.

    All do both if none are to be held out, or a process has one alone.
    """
    least = min(distributed.gather(count))
    held_out = max(1, round(share * least)) if share else 0
    if not 0 < held_out < least:
        return list(range(least)), list(range(count))
    return list(range(least - held_out)), list(range(least - held_out, count))


def _copy(part: nn.Module) -> dict[str, Any]:
    return {name: value.clone() for name, value in part.state_dict().items()}
