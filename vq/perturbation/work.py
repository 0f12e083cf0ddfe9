"""What is done to each stage of a model: let its weights learn, and keep the codes they end at."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from vq.activations.runtime import rounds, unrounded
from vq.activations.tokens import ActivationQuantizer
from vq.calibration.stages import Stage
from vq.calibration.streams import Runner, Stream, Streams
from vq.calibration.weights import Weights
from vq.calibration.whole import Before, restored
from vq.container import Geometry
from vq.distributed import from_first_, gather, is_main
from vq.errors import TrainingError
from vq.formats.grids import Grid, on_grid
from vq.formats.scalar_weights import use_codes
from vq.layers import matrix_of, weight_of
from vq.learning.fitting import BlockPlan, BlockResult, Fitter
from vq.learning.goal import Goal
from vq.perturbation.composition import Composition
from vq.perturbation.equivalence import Equivalences
from vq.perturbation.finding import Finder, PairResult
from vq.perturbation.weight import LearnedWeight
from vq.progress import Advance
from vq.recipe.footprint import peak_bytes
from vq.recipe.selection import Selected

__all__ = ["LearnedLayer", "Learner"]

#: Size of a weight that is as good as 0.
_LEAST = 1e-12


@dataclass(frozen=True)
class LearnedLayer:
    """How one layer went.

    Attributes
    ----------
    geometry : Geometry
    trained : int
        Numbers that learnt.
    moved : float
        Size of what was added to the weight before it was rounded, relative to the weight's.
    """

    geometry: Geometry
    trained: int
    moved: float


@dataclass(frozen=True, eq=False)
class _Found:
    """Codes of a layer and their grid, with what there is to say of it."""

    integers: Tensor
    grid: Grid
    layer: LearnedLayer


class Learner:
    """Trains the weights of one stage after the other (:mod:`vq.calibration.walk`).

    The modules are those of both models: where the unquantised one runs, their original weights
    are in place. Singular vectors and all else that learning needs exist for the present stage
    only.

    Parameters
    ----------
    runner : Runner
    before : Before
        Where original weights are put away.
    layers : sequence of Selected
    stages : sequence of Stage
    composition : Composition
    plan : BlockPlan
    window : int
        Blocks that learn at once.
    activations : ActivationQuantizer or None
        Off in the unquantised model.
    advance : Advance
        Of a progress bar that counts stages.

    Attributes
    ----------
    streams : Streams
    layers : dict of layer name to LearnedLayer
        Those that are done.
    blocks : list of BlockResult
    pairs : list of PairResult
    """

    def __init__(
        self,
        runner: Runner,
        before: Before,
        layers: Sequence[Selected],
        stages: Sequence[Stage],
        composition: Composition,
        plan: BlockPlan,
        window: int,
        activations: ActivationQuantizer | None,
        advance: Advance,
    ) -> None:
        reference = Stream(runner, self._unquantised)
        self.streams = Streams(
            Stream(runner), reference, alike=activations is None and not rounds(runner.model)
        )
        self.layers: dict[str, LearnedLayer] = {}
        self.blocks: list[BlockResult] = []
        self.pairs: list[PairResult] = []
        self._before, self._composition, self._advance = before, composition, advance
        self._activations = activations
        self._selected = {layer.name: layer for layer in layers}
        self._fitter = Fitter(self.streams, plan, advance, window)
        self._window, self._stages = window, {stage.place: stage for stage in stages}
        self._carried: dict[str, dict[str, Tensor]] = {}
        self._finder = Finder(self.streams.changed, self._selected)
        self._model, self._chain = runner.model, runner.chain
        self._weights = Weights([])
        self._found: dict[str, _Found] = {}

    @contextmanager
    def _unquantised(self, stage: Stage) -> Iterator[None]:
        with self._weights.unquantised(), unrounded(self._model, self._activations):
            yield

    @contextmanager
    def at(self, stage: Stage) -> Iterator[None]:
        """Keep both weights of a stage's layers; in the end, store the codes in their modules."""
        layers = [self._selected[name] for name in stage.layers]
        self._weights = Weights(layers)
        yield
        for layer in layers:
            weight = layer.modules[0].weight
            assert isinstance(weight, nn.Parameter)
            self._before.put_away(weight)
            found = self._found.pop(layer.name)
            use_codes(layer.modules, layer.geometry, found.integers, found.grid)
            self._before.drop(weight)
        self._weights = Weights([])

    def do(self, stage: Stage) -> dict[str, Any]:
        """Train the layers of a stage, and use the codes that they end at from then on."""
        goal = self._fitter.goal(stage)
        layers = [self._selected[name] for name in stage.layers]
        with ExitStack() as stack:
            tied, pairs, begin = self._tied(stage)
            behind = self._behind(stage)
            modules = [m for layer in (*layers, *behind) for m in layer.modules]
            stack.enter_context(restored([*modules, *tied.modules()]))
            learning = {layer.name: self._learning(layer, tied) for layer in (*layers, *behind)}
            tied.scale_others()
            groups = [group for one in learning.values() for group in one.groups()]
            groups += tied.groups()
            _warn_if_few(stage, goal, groups)
            result = self._fit(stage, goal, groups, self._begin(learning, begin))
            found = {name: self._read(name, learning[name]) for name in stage.layers}
            self._carried = {layer.name: _state(learning[layer.name]) for layer in behind}
            others = tied.others()
        self._put(found, others)
        self._report(result, pairs)
        return {
            "layers": {name: _pack(one) for name, one in found.items()},
            "others": {name: value.cpu() for name, value in others.items()},
            "result": asdict(result),
            "pairs": [asdict(one) for one in pairs],
            "carried": self._carried,
        }

    def use(self, stage: Stage, state: Mapping[str, Any]) -> None:
        """Use the codes that an earlier run has found."""
        geometries = {name: self._selected[name].geometry for name in stage.layers}
        found = {name: _unpack(state["layers"][name], g) for name, g in geometries.items()}
        self._put(found, state["others"])
        self._carried = state["carried"]
        pairs = [PairResult(**one) for one in state["pairs"]]
        self._report(BlockResult(**state["result"]), pairs)

    def _tied(
        self, stage: Stage
    ) -> tuple[Equivalences, list[PairResult], Callable[[], None] | None]:
        """Pairs of a stage, what there is to say of them, and where they may begin."""
        originals = {name: self._weights.original(name) for name in stage.layers}
        asked = self._composition.equalisation
        if asked is None or (stage.place is None and self._chain is not None):
            return Equivalences(self._model, self._selected, originals, [], 0.0), [], None
        with unrounded(self._model, self._activations):
            pairs, left = self._finder.find(stage, self._weights)
            ranges = self._finder.ranges(stage, pairs)
        tied = Equivalences(self._model, self._selected, originals, pairs, asked.rate)
        counts = [sum(p.numel() for p in one.parameters()) for one in tied.numbers]
        results = [
            PairResult(stage.name, pair.name, count)
            for pair, count in zip(pairs, counts, strict=True)
        ]
        begin = partial(tied.begin, ranges, asked.strength, asked.least)
        return tied, results + left, begin if pairs else None

    def _behind(self, stage: Stage) -> list[Selected]:
        """Layers that learn together with a stage's."""
        if self._window == 1 or stage.place is None:
            return []
        follows = self._stages.get(stage.place + 1)
        return [] if follows is None else [self._selected[name] for name in follows.layers]

    def _begin(
        self, learning: Mapping[str, LearnedWeight], pairs: Callable[[], None] | None
    ) -> Callable[[], None] | None:
        """What brings a stage to where it may begin: where it came to behind another, its pairs."""
        carried = {name: self._carried[name] for name in learning if name in self._carried}
        if not carried:
            return pairs

        def begin() -> None:
            for name, state in carried.items():
                learning[name].load_state_dict(state, strict=False)  # pairs have none yet
            if pairs is not None:
                pairs()

        return begin

    def _learning(self, layer: Selected, tied: Equivalences) -> LearnedWeight:
        """Let a layer's modules have a weight that learns."""
        around = tied.around.get(layer.name)
        learning = self._composition.weight(layer.geometry, layer.weight, around)
        # Another processor may turn singular vectors.
        from_first_([buffer for buffer in learning.buffers() if buffer.is_floating_point()])
        for module in layer.modules:
            parametrize.register_parametrization(module, "weight", learning)
        return learning

    def _fit(
        self,
        stage: Stage,
        goal: Goal,
        groups: list[dict[str, Any]],
        begin: Callable[[], None] | None,
    ) -> BlockResult:
        try:
            return self._fitter.fit(stage, goal, groups, begin)
        except TrainingError as error:
            if is_main():
                warnings.warn(f"{error}; it stays as rounded at its start", stacklevel=2)
            start = self._fitter.error(stage, goal)
            return BlockResult(stage.name, start, start)

    def _read(self, name: str, learning: LearnedWeight) -> _Found:
        """Codes that a weight has ended at."""
        g, original = self._selected[name].geometry, self._weights.original(name)
        trained = sum(p.numel() for group in learning.groups() for p in group["params"])
        matrix = matrix_of(original, g.op, g.axis).float()
        moved = float((learning.moved(original) - matrix).norm() / matrix.norm().clamp_min(_LEAST))
        return _Found(*learning.read(original), LearnedLayer(g, trained, moved))

    def _put(self, found: dict[str, _Found], others: Mapping[str, Tensor]) -> None:
        """Use codes, gains and biases from now on."""
        for name, one in found.items():
            g, original = one.layer.geometry, self._weights.original(name)
            decoded = weight_of(on_grid(one.integers, one.grid, g), g.shape, g.op, g.axis)
            self._weights.put(name, decoded.to(original.device, original.dtype).contiguous())
            self.layers[name] = one.layer
        self._found |= found
        for name, value in others.items():
            parameter = self._model.get_parameter(name)
            self._weights.split(name, parameter)
            self._weights.put(name, value.to(parameter.device))

    def _report(self, result: BlockResult, pairs: list[PairResult]) -> None:
        self.blocks.append(result)
        self.pairs += pairs
        errors = f"error {result.before:.4f} to {result.after:.4f}"
        self._advance(note=f"{result.name}  {errors}  {peak_bytes() / 1e9:.1f} GB")


def _warn_if_few(stage: Stage, goal: Goal, groups: list[dict[str, Any]]) -> None:
    trained = sum(p.numel() for group in groups for p in group["params"])
    values = sum(gather(goal.values))
    if values < trained and is_main():
        warnings.warn(
            f"block {stage.name!r}: calibration should give more values than learn, {trained:,}, "
            f"not {values:,}; give more of it, or let less learn",
            stacklevel=2,
        )


def _state(learning: LearnedWeight) -> dict[str, Tensor]:
    return {name: value.cpu().clone() for name, value in learning.state_dict().items()}


def _pack(found: _Found) -> dict[str, Any]:
    zero = found.grid.zero
    return {
        "integers": found.integers.cpu(),
        "scale": found.grid.scale.cpu(),
        "zero": None if zero is None else zero.cpu(),
        "trained": found.layer.trained,
        "moved": found.layer.moved,
    }


def _unpack(item: Mapping[str, Any], g: Geometry) -> _Found:
    grid = Grid(item["scale"], item["zero"])
    return _Found(item["integers"], grid, LearnedLayer(g, item["trained"], item["moved"]))
