"""What an instance cannot run, said before anything is simulated."""

from collections.abc import Sequence

from hwsim.program.step import Step
from hwsim.program.strips import rows_at_once
from rtl import AcceleratorConfig
from vq.container import ConfigError, bulleted

__all__ = ["require_runnable", "step_problems"]


def require_runnable(steps: Sequence[Step], config: AcceleratorConfig) -> None:
    """Require that an instance can run all steps, but for their weight streams.

    Raises
    ------
    ConfigError
        Names every step that it cannot, each with the limit.
    """
    problems = [
        f"layer {step.name!r}: {problem}"
        for step in steps
        for problem in step_problems(step, config)
    ]
    if problems:
        raise ConfigError(bulleted("accelerator", list(dict.fromkeys(problems))))


def step_problems(step: Step, config: AcceleratorConfig) -> list[str]:
    """Requirements that a step does not meet; those of its weight stream are checked elsewhere."""
    problems = []
    if step.entry is not None:
        g = step.entry.geometry
        if g.axis == "kernel" and g.d > 1:
            problems.append("axis must be 'in' or 'out', not 'kernel'")
        if g.tile_outputs != config.rows:
            problems.append(
                f"tile_outputs must be {config.rows}, the rows of the array, not {g.tile_outputs}"
            )
        of_group = g.O // step.groups
        if (
            step.groups > 1
            and of_group % config.rows
            and (of_group & (of_group - 1) or of_group > config.rows)
        ):
            problems.append(
                f"outputs of a group must be a power of two below {config.rows} or a multiple of "
                f"it (rows of the array), not {of_group}"
            )
        if g.group and not _groups_fit(g.group, g.I, config):
            problems.append(
                f"group must be a multiple of {config.columns} (columns of the array) or the "
                f"whole row, not {g.group}"
            )
    for name, value, limit in (
        ("kernel", max(step.kernel), 255),
        ("stride", max(step.stride), 65535),
        ("channels", max(step.source.channels, step.target.channels), 65535 - config.rows),
        ("height and width", max(step.source.height, step.source.width), 65535),
    ):
        if value > limit:
            problems.append(f"{name} must be at most {limit}, not {value}")
    if rows_at_once(step, config) == 0:
        problems.append(
            f"one row of {step.target.width} positions with {step.source.channels} inputs and "
            f"{step.target.channels} outputs must fit half of input_bytes = {config.input_bytes} "
            f"and of output_bytes = {config.output_bytes}, and accumulators = {config.accumulators}"
        )
    return problems


def _groups_fit(group: int, inputs: int, config: AcceleratorConfig) -> bool:
    return group >= inputs or group % config.columns == 0
