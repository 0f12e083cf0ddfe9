"""Build the graph of time steps of a quantised diffusion network."""

import copy
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from vq.activations.timesteps import Clock, TimedRounding, clock_of
from vq.calibration.batches import fingerprint
from vq.calibration.sampling import Draw, Sampler, course
from vq.container import Container, open_container
from vq.errors import ConfigError
from vq.formats.remaining import remaining
from vq.formats.wrappers import bare
from vq.integer.calibrate import BINS, choose_peak
from vq.integer.graph import CHOICES, Node
from vq.integer.steps.golden import LayerNumbers, StepModel
from vq.integer.steps.graph import HostNode, StepGraph
from vq.integer.steps.store import require_steps_only, store_steps
from vq.integer.steps.trace import Draft, trace_network, translated
from vq.storage import load

__all__ = ["add_steps", "integerize_steps"]

#: Values of a tensor, in one call of the network, that scales are judged on.
_VALUES = 4096
_CODE_MAX = 127


def add_steps(
    path: str | os.PathLike[str],
    model: nn.Module,
    sampler: Sampler,
    draw: Draw,
    *,
    out: str | os.PathLike[str] | None = None,
    choice: str = "mse",
    images: int = 4,
    classes: int = 0,
    seed: int = 0,
    rom: Mapping[str, NDArray[np.int8]] | None = None,
    progress: bool = True,
) -> StepModel:
    """Give a container of a diffusion network its integer graph of time steps.

    Parameters
    ----------
    path : path
        A file of the method w4a8-diffusion.
    model : nn.Module
        A network of the same architecture, which is not changed.
    sampler : Sampler
        With the steps that the file has scales for.
    draw : Draw
        Makes noise and conditions; scales of what layers give are measured on the network's own
        course from there.
    out : path, optional
        Where to write; without it, the container itself is replaced once the new one is complete.
    choice : str
        How these scales are chosen: "max", "percentile" or "mse".
    images : int
        That are drawn.
    classes : int
        That the network is told of, 0 if none; tables have a row for each.
    seed : int
        Of noise.
    rom : mapping of ``rom:<sha256>`` to [k, d] int8, optional
        Fixed codebooks that the file only names.
    progress : bool
        Show a progress bar when standard error is a terminal.

    Raises
    ------
    ConfigError
        If the network has operations that no integer graph has, or layers without scales by time
        step.
    ContainerError
        If the file is damaged or does not fit the model.
    OutputError
        If ``out`` cannot be written; what existed before is intact.
    """
    if images < 1:
        raise ConfigError(f"images must be at least 1, not {images}")
    network = load(path, into=copy.deepcopy(bare(model)), rom=rom, progress=progress).eval()
    with open_container(path, rom=rom) as container:
        start = draw(images, torch.Generator().manual_seed(seed))
        visits = course(sampler, network, *start)
        found = integerize_steps(network, container, visits, choice=choice, classes=classes)
        store_steps(container, found, path if out is None else out)
    return found


@torch.no_grad()
def integerize_steps(
    model: nn.Module,
    container: Container,
    visits: Iterable[tuple[Tensor, ...]],
    *,
    choice: str = "mse",
    classes: int = 0,
) -> StepModel:
    """Build the graph of a network that holds the weights, scales and tables of ``container``.

    Inputs of layers have the scales that were learnt. What layers and sums give has that of a
    layer that reads it as it is; other scales are measured, by time step.

    Parameters
    ----------
    model : nn.Module
        As :func:`vq.load` gives it.
    container : Container
    visits : iterable of tuples of tensors
        Arguments of calls, each at one time step; all steps must occur.
    choice, classes
        See :func:`add_steps`.

    Raises
    ------
    ConfigError, ContainerError
        As :func:`add_steps`.
    """
    if choice not in CHOICES:
        raise ConfigError(f"choice must be one of {', '.join(CHOICES)}, not {choice!r}")
    require_steps_only(container)
    clock = clock_of(model)
    if clock is None:
        raise ConfigError(
            f"{container.path}: must have scales by time step to become an integer graph of time "
            "steps; quantise by w4a8-diffusion"
        )
    scales = _layer_scales(model, clock)
    module = trace_network(model.eval())
    network = _Network(module, clock)
    calls = [tuple(inputs) for inputs in visits]
    drafts, measured = network.measured(calls, list(scales), choice)
    _share(drafts, container)
    own = _scales(drafts, scales, measured, len(clock.times))
    graph = StepGraph(
        tuple(map(_node, drafts)), tuple(clock.times.tolist()), classes, choice, fingerprint(calls)
    )
    tables = network.tables(drafts, calls[0], classes)
    layers = {d.name: _numbers(d, module, container) for d in drafts if d.on_device and d.layer}
    tensors = {
        d.name: {f: _float32(t) for f, t in d.tensors.items()} for d in drafts if d.tensors
    } | {name: {"rows": rows} for name, rows in tables.items()}
    return StepModel(graph, layers, tensors, own)


def _layer_scales(model: nn.Module, clock: Clock) -> dict[str, NDArray[np.float32]]:
    """Scale of what every layer reads, [times], by layer."""
    found, steps = {}, len(clock.times)
    for name, module in model.named_modules():
        for part in remaining(module):
            if not isinstance(part, TimedRounding):
                continue
            if part.bits != 8 or not part.symmetric:
                about = "about 0" if part.symmetric else "from end to end"
                raise ConfigError(
                    f"layer {name!r}: activations must have 8 bits about 0 to be those of an "
                    f"integer graph, not {part.bits} {about}"
                )
            table = _float32(part.table())
            found[name] = table[np.arange(steps) * len(table) // steps]
    return found


class _Network:
    """A traced network, run value by value."""

    def __init__(self, module: fx.GraphModule, clock: Clock) -> None:
        self.module, self.clock = module, clock

    @contextmanager
    def _at(self, inputs: Sequence[Tensor]) -> Iterator[None]:
        """Let layers and tables know the step, as the network itself does in a call."""
        clock = self.clock
        clock.places = clock.places_of(inputs[1])
        clock.classes = inputs[2] if len(inputs) > 2 else None
        try:
            yield
        finally:
            clock.places = clock.classes = None

    def measured(
        self, calls: Sequence[tuple[Tensor, ...]], layers: Sequence[str], choice: str
    ) -> tuple[list[Draft], dict[fx.Node, list[float]]]:
        """Drafts, and for each of their values a scale by time step."""
        if not calls:
            raise ConfigError("calibration must hold at least one call, not none")
        arguments = [node for node in self.module.graph.nodes if node.op == "placeholder"]
        least = sum(not node.args for node in arguments)  # those without a default
        if given := {len(inputs) for inputs in calls} - {*range(least, len(arguments) + 1)}:
            raise ConfigError(
                f"calibration must call the network with {least} to {len(arguments)} arguments, "
                f"not with {given.pop()}"
            )
        with self._at(calls[0]):
            seen = _Run(self.module).values(calls[0])
        drafts = translated(self.module, seen, layers)
        nodes = {draft.value for draft in drafts if draft.value is not None}
        nodes |= {d.inputs[0].value for d in drafts if d.op == "quantize" and d.inputs[0].value}
        samples: dict[fx.Node, list[list[Tensor]]] = {
            node: [[] for _ in self.clock.times] for node in nodes
        }
        for inputs in calls:
            places = sorted(set(self.clock.places_of(inputs[1]).tolist()))
            if len(places) != 1:
                raise ConfigError("calibration must be of one time step in every call")
            place = places[0]

            def see(node: fx.Node, value: Any, place: int = place) -> None:
                if node in nodes:
                    sizes = value.abs().float().flatten()
                    stride = max(1, sizes.numel() // _VALUES)
                    samples[node][place].append(torch.cat([sizes[::stride], sizes.max()[None]]))

            with self._at(inputs):
                _Run(self.module, see=see).values(inputs)
        first = next(iter(samples.values()))
        lacking = [t for t, own in zip(self.clock.times.tolist(), first, strict=True) if not own]
        if lacking:
            raise ConfigError(f"calibration must reach all time steps, and lacks {lacking}")
        return drafts, {n: [_scale(x, choice) for x in rows] for n, rows in samples.items()}

    def tables(
        self, drafts: Sequence[Draft], like: Sequence[Tensor], classes: int
    ) -> dict[str, NDArray[np.float32]]:
        """Rows of all tables that go by step or class, [times or 1, classes or 1, ...]."""
        wanted = {d.name: d for d in drafts if d.op == "table" and d.value is not None}
        if any(d.settings["classes"] for d in wanted.values()) and not classes:
            raise ConfigError("classes must say how many classes the network is told of, not 0")
        needed = _ancestors(draft.value for draft in wanted.values())
        rows: dict[str, list[Tensor]] = {name: [] for name in wanted}
        for time in self.clock.times.tolist():
            for own in range(max(1, classes)):
                inputs = [torch.zeros_like(like[0][:1]), torch.full_like(like[1][:1], time)]
                if len(like) > 2:
                    inputs.append(torch.full_like(like[2][:1], own))
                with self._at(inputs):
                    values = _Run(self.module, needed).values(inputs)
                for name, draft in wanted.items():
                    assert draft.value is not None
                    rows[name].append(values[draft.value][0])
        found = {}
        for name, draft in wanted.items():
            shape = (len(self.clock.times), max(1, classes), *draft.shape)
            whole = _float32(torch.stack(rows[name])).reshape(shape)
            steps, told = draft.settings["steps"], draft.settings["classes"]
            found[name] = whole[: None if steps else 1, : None if told else 1]
        return found


class _Run(fx.Interpreter):
    """Runs a network, or some nodes of it, and shows what each gives before others change it."""

    def __init__(
        self,
        module: fx.GraphModule,
        only: Collection[fx.Node] | None = None,
        see: Callable[[fx.Node, Any], None] | None = None,
    ) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.extra_traceback = False  # nothing of torch.fx behind our own errors
        self._only, self._see = only, see
        self._found: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        wanted = self._only is None or n in self._only or n.op == "placeholder"
        if n.op == "output" or not wanted:
            return None
        self._found[n] = super().run_node(n)
        if self._see is not None:
            self._see(n, self._found[n])
        return self._found[n]

    def values(self, inputs: Sequence[Tensor]) -> Mapping[fx.Node, Any]:
        """What every node gives."""
        self.run(*inputs)
        return self._found


def _ancestors(nodes: Iterable[fx.Node | None]) -> set[fx.Node]:
    """What must run for these, themselves among it: shapes may be those of the input's values."""
    found: set[fx.Node] = set()
    left = [node for node in nodes if node is not None]
    while left:
        if (node := left.pop()) not in found:
            found.add(node)
            left += node.all_input_nodes
    return found


def _scale(samples: Sequence[Tensor], choice: str) -> float:
    sizes = torch.cat(list(samples))
    peak = float(sizes.max())
    if not np.isfinite(peak):
        raise ConfigError("calibration must be such that all values of the network are finite")
    counts = torch.histc(sizes.cpu(), BINS, 0.0, peak or 1.0).numpy()
    return (choose_peak(counts, peak, choice) or 1.0) / _CODE_MAX


def _scales(
    drafts: Sequence[Draft],
    layers: Mapping[str, NDArray[np.float32]],
    measured: Mapping[fx.Node, Sequence[float]],
    times: int,
) -> NDArray[np.float32]:
    """Value of one step of every node, [times, nodes]: 1 for what is not int8."""
    found = np.ones((times, len(drafts)), np.float32)
    for place, draft in enumerate(drafts):
        if not draft.gives_int8:
            continue
        readers = [d.layer for d in drafts if draft in d.inputs and d.on_device and d.layer]
        if draft.op == "quantize" and draft.layer:
            readers = [draft.layer]
        value = draft.inputs[0].value if draft.op == "quantize" else draft.value
        if readers:
            found[:, place] = layers[readers[0]]
        else:
            assert value is not None
            found[:, place] = measured[value]
    return found


def _share(drafts: Sequence[Draft], container: Container) -> None:
    """Let norms read the model's own tensors where the file has them as they are needed."""
    for draft in drafts:
        if not draft.settings.get("affine") or draft.value is None:
            continue
        names = {f: f"{draft.value.target}.{f}" for f in ("weight", "bias")}
        shapes = {f: ("F32", tuple(draft.tensors[f].shape)) for f in names}
        if all(container.kept_shapes.get(name) == shapes[f] for f, name in names.items()):
            draft.settings["module"] = str(draft.value.target)


def _node(draft: Draft) -> Node | HostNode:
    names = tuple(one.name for one in draft.inputs)
    if draft.on_device:
        return Node(draft.name, draft.op, names, draft.shape, draft.layer, **draft.settings)
    return HostNode(draft.name, draft.op, names, draft.shape, draft.settings)


def _numbers(draft: Draft, module: fx.GraphModule, container: Container) -> LayerNumbers:
    bias = module.get_submodule(draft.layer).bias
    outputs = container.geometry(draft.layer).O
    real = _float32(bias) if isinstance(bias, Tensor) else np.zeros(outputs, np.float32)
    return LayerNumbers.of(container, draft.layer, real)


def _float32(tensor: Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = tensor.detach().cpu().float().numpy()
    return np.ascontiguousarray(found)
