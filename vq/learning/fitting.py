"""One block after the other learns to give what the unquantised model's gives."""

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vq import distributed
from vq.calibration.batches import tensors_of
from vq.calibration.stages import Stage, frozen_but, own_parameters
from vq.calibration.streams import Boundary, Stream, Streams
from vq.errors import ConfigError, TrainingError, bulleted
from vq.learning.goal import Goal
from vq.learning.rates import CosineAdam, Rates, learning, parameter_groups
from vq.learning.rules.clamping import Clamping
from vq.learning.rules.driver import Rules
from vq.learning.rules.rule import RuleSettings
from vq.progress import Advance

__all__ = ["BlockPlan", "BlockResult", "Fitter", "held_out_of"]


@dataclass(frozen=True)
class BlockPlan:
    """Settings of a run; :func:`vq.finetune_blocks_` explains most of them.

    Attributes
    ----------
    held_out : float
        Share of the batches, the last ones, that judge and do not teach.
    patience : int or None
        Judge after every epoch, end after so many in a row without a smaller error, and keep the
        best state; None judges once, in the end.
    depth_weights : tuple of float
        Of the losses behind the block itself and each of the ``look_ahead`` ones, which add up;
        empty: only the last one counts. Near the model's end, what exists does.
    """

    epochs: int
    rates: Rates
    look_ahead: int
    inputs: str
    fixed_signs: bool
    rules: tuple[RuleSettings, ...]
    seed: int
    held_out: float = 0.0
    patience: int | None = None
    depth_weights: tuple[float, ...] = ()

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
        if self.patience is not None and self.patience < 1:
            problems.append(f"patience must be positive, not {self.patience!r}")
        if self.depth_weights and len(self.depth_weights) != self.look_ahead + 1:
            problems.append(
                f"depth_weights must be {self.look_ahead + 1}, one for the block and each behind "
                f"it, not {len(self.depth_weights)}"
            )
        if not all(0 < weight < math.inf for weight in self.depth_weights):
            problems.append(f"depth_weights must be positive, not {self.depth_weights!r}")
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
    window : int
        Blocks that are trained and put back as one, a stage's own and those behind it.

    Attributes
    ----------
    results : list of BlockResult
        Of the stages that are done.
    """

    def __init__(
        self, streams: Streams, plan: BlockPlan, advance: Advance, window: int = 1
    ) -> None:
        assert streams.reference is not None
        self.results: list[BlockResult] = []
        self._changed, self._teacher = streams.changed, streams.reference
        self._plan, self._advance, self._window = plan, advance, window
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

    def goal(self, stage: Stage) -> Goal:
        """What a stage is to give."""
        with distributed.together():
            wanted = self._wanted(stage)
        return Goal(wanted, self._plan.depth_weights if stage.place is not None else ())

    def fit(
        self,
        stage: Stage,
        goal: Goal,
        groups: Sequence[dict[str, Any]] | None = None,
        begin: Callable[[], None] | None = None,
    ) -> BlockResult:
        """Train a stage towards a goal; it stays as it was where that does not help.

        Parameters
        ----------
        stage : Stage
        goal : Goal
        groups : sequence of dict, optional
            What learns, as torch's optimisers take it; nothing else then does. If not given, all
            that is trainable in the stage, at the plan's rates.
        begin : callable, optional
            Changes what learns to where training may begin; it does if the error there is smaller.
        """
        part = self.part(stage)
        before = after = self.error(stage, goal)
        start = _copy(part, groups)
        try:
            with learning(part, self._plan.rates) if groups is None else nullcontext():
                if own := self._own(stage, groups):
                    if begin is not None:
                        begin()
                        if not self.error(stage, goal) < before:
                            _restore(part, start)
                    with frozen_but(self._model, own), torch.enable_grad():
                        self._train(stage, part, own, goal, groups)
            if own:
                after = self.error(stage, goal)
        except BaseException:
            _restore(part, start)
            raise
        if not after < before:
            after = before
            _restore(part, start)
        return BlockResult(stage.name, before, after)

    def use(self, stage: Stage, state: Mapping[str, Any]) -> None:
        """Take what an earlier run has trained."""
        self.part(stage).load_state_dict(state["modules"])
        self._report(BlockResult(**state["result"]))

    def _report(self, result: BlockResult) -> None:
        self.results.append(result)
        self._advance(note=f"{result.name}  error {result.before:.4f} to {result.after:.4f}")

    def _own(self, stage: Stage, groups: Sequence[dict[str, Any]] | None) -> list[nn.Parameter]:
        """What learns in a stage."""
        if groups is not None:
            return [parameter for group in groups for parameter in group["params"]]
        held = own_parameters(self._model, self._chain, stage).values()
        return [parameter for parameter in held if parameter.requires_grad]

    def _wanted(self, stage: Stage) -> list[list[Tensor]]:
        """What the teacher gives for every batch."""
        keep = self._teacher.runner.keep
        batches = range(len(self._teacher.runner))
        return [[keep(t) for t in self._outputs(self._teacher, stage, i)] for i in batches]

    def _outputs(
        self, stream: Stream, stage: Stage, batch: int, boundary: Boundary | None = None
    ) -> list[Tensor]:
        """What counts behind a stage: of a block, and where losses have weights, at every depth."""
        passed: list[Tensor] | None = [] if self._plan.depth_weights else None
        found = stream.run(
            stage, batch, ahead=self._plan.look_ahead, boundary=boundary, passed=passed
        )
        return self._counted(passed or found, batch)

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

    def _loss(self, stage: Stage, batch: int, goal: Goal) -> Tensor:
        boundary = self._teacher.boundary if self._plan.inputs == "teacher" else None
        return goal.error(self._outputs(self._changed, stage, batch, boundary), batch)

    @torch.no_grad()
    def error(self, stage: Stage, goal: Goal) -> float:
        """Mean loss over the batches that judge, of all processes."""
        with distributed.together():
            losses = [self._loss(stage, batch, goal) for batch in self._judged]
        return distributed.mean(torch.stack(losses).mean())

    def _train(
        self,
        stage: Stage,
        part: nn.Module,
        own: list[nn.Parameter],
        goal: Goal,
        groups: Sequence[dict[str, Any]] | None,
    ) -> None:
        plan, count = self._plan, len(self._taught)
        total = plan.epochs * count
        learn = groups
        if learn is None:
            learn = parameter_groups(part, plan.rates, fixed_signs=plan.fixed_signs)
        if not learn:
            return
        optimizer = CosineAdam(list(learn), total)
        best = None if plan.patience is None else _Best(part, groups, plan.patience)
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
                ended = (step + 1) % count == 0  # an epoch
                if best is not None and ended and not best.goes_on(self.error(stage, goal)):
                    break
        finally:
            rules.close()
            part.zero_grad()
        if best is not None:
            best.restore()

    def part(self, stage: Stage) -> nn.Module:
        """The modules of a stage that learn."""
        if self._chain is None:
            return self._model
        if stage.place is not None:
            blocks = self._chain.blocks[stage.place : stage.place + self._window]
            return blocks[0] if len(blocks) == 1 else nn.ModuleList(blocks)
        return nn.ModuleList(self._model.get_submodule(name) for name in stage.layers)


def held_out_of(count: int, share: float) -> tuple[list[int], list[int]]:
    """Which of ``count`` batches teach, on every process equally many, and which judge.

    All do both if none are to be held out, or a process has one alone.
    """
    least = min(distributed.gather(count))
    held_out = max(1, round(share * least)) if share else 0
    if not 0 < held_out < least:
        return list(range(least)), list(range(count))
    return list(range(least - held_out)), list(range(least - held_out, count))


class _Best:
    """The state of the smallest error so far."""

    def __init__(
        self, part: nn.Module, groups: Sequence[dict[str, Any]] | None, patience: int
    ) -> None:
        self._part, self._groups, self._patience = part, groups, patience
        self._state: dict[str, Any] = {}
        self._error, self._waited = math.inf, 0

    def goes_on(self, error: float) -> bool:
        """Whether an error, that of the present state, is a reason to go on."""
        if error < self._error:
            state = _copy(self._part, self._groups)
            self._state, self._error, self._waited = state, error, 0
        else:
            self._waited += 1
        return self._waited < self._patience

    def restore(self) -> None:
        """Take that state, if there is one."""
        if self._state:
            _restore(self._part, self._state)


def _copy(part: nn.Module, groups: Sequence[dict[str, Any]] | None = None) -> dict[str, Any]:
    """All of a part's state, or of the parameters in groups, if nothing else learns."""
    state = part.state_dict(keep_vars=True)
    if groups is not None:
        learn = {id(parameter) for group in groups for parameter in group["params"]}
        state = {name: value for name, value in state.items() if id(value) in learn}
    return {name: value.detach().clone() for name, value in state.items()}


def _restore(part: nn.Module, state: Mapping[str, Any]) -> None:
    part.load_state_dict(state, strict=False)
