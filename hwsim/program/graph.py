"""Lowering: nodes of an integer graph to steps."""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence

from hwsim.program.step import Addition, Numbers, Step, Tensor
from vq.container import ConfigError, Container, LayerEntry, bulleted
from vq.integer import IntegerModel, Node
from vq.integer.golden import Parameters
from vq.integer.steps import HostNode, StepModel

__all__ = ["steps_of_graph", "steps_of_turns"]


def steps_of_graph(model: IntegerModel, container: Container) -> list[Step]:
    """Steps that give every value of the graph that is needed, the output last.

    An addition is done behind the requantisation of the step that gives its later operand.
    Moving data (``shortcut``, ``relu`` on its own) and pooling become steps with identity weights.

    Raises
    ------
    ConfigError
        If a node cannot run: all of them are named.
    """
    lowering = _Lowering(model.graph.nodes, model.parameters, container)
    _require_runnable(model.graph.nodes)
    for node in model.graph.nodes:
        lowering.add(node)
    return lowering.steps


def steps_of_turns(model: StepModel, time: int, container: Container) -> list[list[Step]]:
    """Steps of every turn of the device in a graph of time steps, with the numbers of one of them.

    Values lie where they are from turn to turn. What the host rounds in between are tensors that
    no step gives.

    Raises
    ------
    ConfigError
        If a node cannot run: all of them are named.
    """
    nodes = model.graph.nodes
    lowering = _Lowering(nodes, model.parameters(time), container)
    _require_runnable([node for node in nodes if isinstance(node, Node)])
    turns = []
    for turn in model.graph.turns()[1::2]:
        lowering.steps = []
        for node in turn:
            assert isinstance(node, Node)
            lowering.enter(node)
            lowering.add(node)
        turns.append(lowering.steps)
    return turns


def _require_runnable(nodes: Sequence[Node]) -> None:
    problems = [f"node {node.name!r}: {found}" for node in nodes if (found := _refusal(node))]
    if problems:
        raise ConfigError(bulleted("accelerator", problems))


def _refusal(node: Node) -> str:
    """Why a node cannot run, or nothing."""
    if node.op == "maxpool":
        return "op must not be maxpool: the accelerator has none"
    if len(node.shape) > 3 and node.op != "linear":
        return f"shape must have at most two spatial axes, not {list(node.shape)}"
    if node.op == "flatten" and math.prod(node.shape) != node.shape[0]:
        return f"flatten must give one axis, not {list(node.shape)}"
    return ""


class _Lowering:
    def __init__(
        self,
        nodes: Sequence[Node | HostNode],
        parameters: Mapping[str, Parameters],
        container: Container,
    ) -> None:
        self.steps: list[Step] = []
        self._parameters = parameters
        self._entries: dict[str, LayerEntry] = {e.geometry.name: e for e in container.layers}
        self._values: dict[str, Tensor] = {}
        self._nodes = {node.name: node for node in nodes}
        self._uses = Counter(name for node in nodes for name in node.inputs)
        self._uses[nodes[-1].name] += 1
        self._readers = {name: n for n in reversed(nodes) for name in n.inputs}

    def enter(self, node: Node) -> None:
        """Give what a node reads a place, as the node has it, if nothing has given it."""
        rows = node.op == "linear" and len(node.shape) > 1
        if node.op == "add":
            known = (self._values.get(name) for name in node.inputs)
            rows = any(one is not None and not one.channels_first for one in known)
        for name in node.inputs:
            if name not in self._values:
                self._values[name] = self._tensor(self._nodes[name], channels_first=not rows)

    def add(self, node: Node) -> None:
        """Turn one node into a step, or into another name of a value."""
        getattr(self, f"_{node.op}")(node)

    def _tensor(self, node: Node | HostNode, *, channels_first: bool) -> Tensor:
        shape = node.shape
        if not channels_first:
            return Tensor(node.name, shape[-1], math.prod(shape[:-1]), 1, channels_first=False)
        height, width = (*shape[1:], 1, 1)[:2]
        return Tensor(node.name, shape[0], height, width)

    def _push(self, step: Step) -> None:
        self.steps.append(step)
        self._values[step.name] = step.target

    def _input(self, node: Node) -> None:
        reader = self._readers.get(node.name)
        rows = reader is not None and reader.op == "linear" and len(node.shape) > 1
        self._values[node.name] = self._tensor(node, channels_first=not rows)

    def _linear(self, node: Node) -> None:
        self._push(self._weighted(node, channels_first=len(node.shape) == 1))

    def _conv(self, node: Node) -> None:
        kernel = self._entries[node.layer].geometry.shape[2:]
        step = self._weighted(node, channels_first=True)
        self._push(
            dataclasses.replace(
                step,
                kernel=_pair(kernel, 1),
                stride=_pair(node.stride, 1),
                before=_pair(tuple(before for before, _ in node.padding), 0),
                dilation=_pair(node.dilation, 1),
                groups=node.groups,
            )
        )

    def _weighted(self, node: Node, *, channels_first: bool) -> Step:
        p = self._parameters[node.name]
        numbers = Numbers(p.bias, p.multiplier, p.shift)
        if p.group:
            numbers = dataclasses.replace(
                numbers, group_scale=p.group_scale, group_shift=int(p.group_shift[0])
            )
        return Step(
            node.name,
            self._values[node.inputs[0]],
            self._tensor(node, channels_first=channels_first),
            numbers,
            entry=self._entries[node.layer],
            relu=node.relu,
        )

    def _global_avgpool(self, node: Node) -> None:
        p = self._parameters[node.name]
        source = self._values[node.inputs[0]]
        numbers = Numbers.same(source.channels, int(p.multiplier[0]), int(p.shift[0]))
        target = self._tensor(node, channels_first=True)
        self._push(Step(node.name, source, target, numbers, pool=True, relu=node.relu))

    def _shortcut(self, node: Node) -> None:
        self._push(
            self._copy(
                node,
                self._values[node.inputs[0]],
                stride=_pair(node.stride, 1),
                first_channel=-node.channels[0],
            )
        )

    def _relu(self, node: Node) -> None:
        self._push(self._copy(node, self._values[node.inputs[0]], relu=True))

    def _copy(self, node: Node, source: Tensor, **fields: object) -> Step:
        target = self._tensor(node, channels_first=source.channels_first)
        return Step(node.name, source, target, Numbers.same(target.channels), **fields)  # type: ignore[arg-type]

    def _flatten(self, node: Node) -> None:
        source = self._values[node.inputs[0]]
        if source.positions != 1:
            raise ConfigError(
                f"accelerator: node {node.name!r}: flatten must follow a pooling to one position, "
                f"not {source.positions}"
            )
        self._values[node.name] = source

    def _add(self, node: Node) -> None:
        """Behind the step of the later operand, if that has no other reader; else behind a copy."""
        p = self._parameters[node.name]
        order = {step.target: i for i, step in enumerate(self.steps)}
        operands = [self._values[name] for name in node.inputs]
        late = max((0, 1), key=lambda i: order.get(operands[i], -1))
        own, other = operands[late], operands[1 - late]
        step = self.steps[order[own]] if own in order else None
        free = step is not None and self._uses[node.inputs[late]] == 1 and step.addition is None
        if step is not None and free:
            self.steps.remove(step)
        else:
            step = self._copy(node, own)
        addition = Addition(
            other, int(p.multiplier[late]), int(p.multiplier[1 - late]), int(p.shift[0]), node.relu
        )
        target = self._tensor(node, channels_first=own.channels_first)
        self._push(dataclasses.replace(step, name=node.name, target=target, addition=addition))


def _pair(values: tuple[int, ...], missing: int) -> tuple[int, int]:
    """One number per axis, vertical first; an axis that is not there has ``missing``."""
    vertical, horizontal = (*values, missing, missing)[:2]
    return vertical, horizontal
