"""From a workload and a recipe to steps of an accelerator, without any weight."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hwsim.program import Numbers, Step, Tensor
from hwsim.program.limits import step_problems
from hwsim.program.step import Addition
from hwsim.workloads.layer import INPUT, WEIGHTED_OPS, WorkloadLayer
from hwsim.workloads.network import Workload
from hwsim.workloads.planned import PlannedFile
from rtl import AcceleratorConfig
from vq.container import ConfigError, Geometry, LayerEntry, Provenance, bulleted
from vq.container.header import canonical_json
from vq.recipe.recipe import Recipe
from vq.version import TOOL

__all__ = ["PlannedWorkload", "geometries_of", "plan_workload"]

#: Right shift of group sums; any value costs the same.
_GROUP_SHIFT = 12


@dataclass(frozen=True, eq=False)
class PlannedWorkload:
    """What an accelerator does of a workload, ready for :func:`hwsim.program.assemble`.

    Attributes
    ----------
    workload : Workload
        The layers that were planned, each with ``count`` 1.
    file : PlannedFile
        The file that they are in.
    steps : list of Step
        In execution order. Their multipliers are placeholders: sizes and places do not depend on
        them.
    counts : dict of Step to int
        How often a step happens. All 1 unless the plan was made with ``once``.
    left_out : dict of str to str
        Layers that the accelerator does not run, by name, with the reason.
    """

    workload: Workload
    file: PlannedFile
    steps: list[Step]
    counts: dict[Step, int]
    left_out: dict[str, str]


def plan_workload(
    workload: Workload,
    recipe: Recipe,
    config: AcceleratorConfig,
    *,
    once: bool = False,
    kept: Mapping[str, tuple[str, tuple[int, ...]]] | None = None,
) -> PlannedWorkload:
    """Lay out a workload under a recipe, for an accelerator.

    Every repetition of a block has its own bytes in the file and its own steps, so cycles, bytes
    and addresses are those of the whole network. With ``once`` a block is laid out a single time
    and its steps have counts: a cycle model multiplies, which is faster, and counts the start and
    the drain of a block at every repetition, where in truth blocks overlap as layers do. Addresses
    are then those of a file of one block.

    An addition is done behind the step that gives its later operand, as for integer graphs. Where
    an input's origin is unknown it is a tensor of its own. The image of a network that begins with
    a convolution of patches that do not overlap lies patch by patch, so that it is a linear. What
    has no weights and exceeds the instance's buffers is left out; a layer with weights that does
    is refused by ``assemble``.

    Parameters
    ----------
    recipe : Recipe
        Patterns match names of layers with weights, such as ``blocks.0.mlp.fc1``. The rows of the
        array take the place of ``tile_outputs``.
    config : AcceleratorConfig
    kept : mapping of name to (dtype, shape), optional
        Further tensors of the file, which move nothing but lengthen its header.

    Raises
    ------
    RecipeError, ConfigError
        If a pattern matches nothing or a method does not fit its layer; all of them are named.
    """
    counts = {layer.repetition(0).name: layer.count for layer in workload.layers} if once else {}
    chosen = workload.once() if once else workload.expanded()
    geometries = geometries_of(chosen, recipe, tile_outputs=config.rows)
    provenance = Provenance(TOOL, canonical_json(recipe.to_json()))
    file = PlannedFile(geometries, kept, provenance)
    lowering = _Lowering(chosen, config, {entry.geometry.name: entry for entry in file.layers})
    for layer in chosen.layers:
        lowering.add(layer)
    return PlannedWorkload(
        chosen,
        file,
        lowering.steps,
        {step: counts.get(step.name, 1) for step in lowering.steps},
        lowering.left_out,
    )


def geometries_of(
    workload: Workload, recipe: Recipe, *, tile_outputs: int | None = None
) -> list[Geometry]:
    """Streams of the layers that a recipe compresses, in execution order.

    Layers that share weights have one stream; embeddings have one if the recipe says so.

    Raises
    ------
    RecipeError, ConfigError
        As :func:`plan_workload`.
    """
    owners = [layer for layer in workload.layers if layer.weight_shape and not layer.shares]
    chosen = recipe.resolve([layer.name for layer in owners])
    problems, geometries = [], []
    for layer in owners:
        rule = chosen[layer.name]
        if rule is None:
            continue
        if tile_outputs is not None:
            rule = dataclasses.replace(rule, **{"tile_outputs": tile_outputs})
        misfits = rule.problems() or rule.misfit(layer.op, layer.weight_shape)
        problems += [f"layer {layer.name!r}: {problem}" for problem in misfits]
        if not misfits:
            geometries.append(rule.geometry(layer.name, layer.op, layer.weight_shape))
    if problems:
        raise ConfigError(bulleted(f"recipe for {workload.name!r}", problems))
    return geometries


@dataclass
class _Lowering:
    """Walks the layers once."""

    workload: Workload
    config: AcceleratorConfig
    entries: Mapping[str, LayerEntry]
    steps: list[Step] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    _values: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._uses = Counter(s for layer in self.workload.layers for s in layer.sources)

    def add(self, layer: WorkloadLayer) -> None:
        """Turn a layer into a step, fuse it into one, or leave it out."""
        entry = self.entries.get(layer.shares or layer.name)
        whole = layer.kernel == (layer.height, layer.width) and layer.positions == 1
        if layer.op in WEIGHTED_OPS:
            if entry is None:
                self._leave(layer, "kept by the recipe")
            else:
                self._weighted(layer, entry)
        elif layer.op == "avgpool" and whole:
            self._move(layer, pool=True)
        elif layer.op == "shortcut":
            first = -((layer.outputs - layer.inputs) // 2)
            self._move(layer, stride=layer.stride, first_channel=first)
        elif layer.op == "add" and any(name in self._made() for name in layer.sources):
            self._add(layer)
        else:
            self._leave(layer, f"{layer.op} is not run by the accelerator")

    def _leave(self, layer: WorkloadLayer, reason: str) -> None:
        """Somebody else computes it; its output lies in memory like any other."""
        self.left_out[layer.name] = reason
        if layer.op != "matmul":  # heads and positions are not those of a tensor here
            self._values[layer.name] = _target(layer)

    def _weighted(self, layer: WorkloadLayer, entry: LayerEntry) -> None:
        g = entry.geometry
        if set(layer.sources) <= {INPUT} and _is_of_patches(layer):
            layer = WorkloadLayer(layer.name, "linear", g.I, g.O, rows=layer.positions)
        numbers = Numbers.same(layer.outputs)
        if g.group:
            scale = np.broadcast_to(np.int16(1), (g.O, g.groups // g.O))
            numbers = dataclasses.replace(numbers, group_scale=scale, group_shift=_GROUP_SHIFT)
        step = Step(
            layer.name, self._source(layer), _target(layer), numbers, entry,
            layer.kernel, layer.stride, (layer.padding[0][0], layer.padding[1][0]),
            layer.dilation, layer.groups,
        )  # fmt: skip
        self._push(step)

    def _move(self, layer: WorkloadLayer, **fields: Any) -> None:
        """A step of identity weights, if the instance has room for it."""
        step = _identity(layer, self._source(layer), **fields)
        problems = step_problems(step, self.config)
        if problems:
            self._leave(layer, problems[0])
        else:
            self._push(step)

    def _add(self, layer: WorkloadLayer) -> None:
        """Behind the step of the later operand, if that has no other reader; else behind a copy."""
        made = self._made()
        late = max(layer.sources, key=lambda name: made.get(name, -1))
        rest = [name for name in layer.sources if name != late]
        other = self._fitting(rest[0], layer) if rest else None
        if other is None:
            other = _tensor(layer, f"{layer.name}.residual")
        step = self.steps[made[late]]
        if not _same_shape(step.target, layer):
            self._leave(layer, "its operands are of other shapes than what gives them")
            return
        if self._uses[late] == 1 and step.addition is None:
            self.steps.remove(step)
        else:
            step = _identity(layer, step.target)
        # Both operands count as they are: (2 x + 2 y + 1) >> 1.
        addition = Addition(other, 2, 2, 1, relu=False)
        self._push(
            dataclasses.replace(step, name=layer.name, target=_target(layer), addition=addition)
        )

    def _made(self) -> dict[str, int]:
        return {step.name: number for number, step in enumerate(self.steps)}

    def _source(self, layer: WorkloadLayer) -> Tensor:
        found = self._fitting(layer.sources[0], layer) if layer.sources else None
        return _tensor(layer, f"{layer.name}.input") if found is None else found

    def _fitting(self, name: str, layer: WorkloadLayer) -> Tensor | None:
        """The output of another layer, if it is what this one reads as it lies."""
        if name == INPUT:  # its first reader says how it lies
            self._values.setdefault(INPUT, _tensor(layer, INPUT))
        found = self._values.get(name)
        return found if found is not None and _same_shape(found, layer) else None

    def _push(self, step: Step) -> None:
        self.steps.append(step)
        self._values[step.name] = step.target


def _is_of_patches(layer: WorkloadLayer) -> bool:
    whole = layer.groups == 1 and layer.padding == ((0, 0), (0, 0)) and layer.dilation == (1, 1)
    return whole and layer.kernel == layer.stride != (1, 1)


def _identity(layer: WorkloadLayer, source: Tensor, **fields: Any) -> Step:
    return Step(layer.name, source, _target(layer), Numbers.same(layer.outputs), **fields)


def _same_shape(tensor: Tensor, layer: WorkloadLayer) -> bool:
    want = _tensor(layer, "")
    return (tensor.channels, tensor.height, tensor.width) == (
        want.channels, want.height, want.width
    )  # fmt: skip


def _tensor(layer: WorkloadLayer, name: str) -> Tensor:
    """A tensor that the layer can read; rows are its height."""
    image = (layer.height, layer.width) != (1, 1)
    height = layer.height if image else layer.rows
    return Tensor(name, layer.inputs, height, layer.width, channels_first=image)


def _target(layer: WorkloadLayer) -> Tensor:
    image = (layer.height, layer.width) != (1, 1)
    height = layer.out_height if image else layer.rows
    return Tensor(layer.name, layer.outputs, height, layer.out_width, channels_first=image)
