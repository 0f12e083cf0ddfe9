"""What is done to each stage of a model: gather statistics, solve, put the codes in place."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from torch import nn

from rescomp.apply import replace_weight
from rescomp.codebooks.layers import CodebookSolver, is_coded, solved_together
from rescomp.codebooks.quantize import Coded
from rescomp.methods import RTN, Method, uncrossed
from rescomp.parts import quantize_parts
from rescomp.quantize import Quantized, Report
from rescomp.resume import pack, unpack
from rescomp.settings import Settings
from rescomp.tuning import Tuner
from vq.activations.runtime import rounds, unrounded
from vq.activations.tokens import ActivationQuantizer
from vq.calibration.gathering import Gatherer, Group, is_looked_up
from vq.calibration.norms import Norms
from vq.calibration.stages import Stage
from vq.calibration.statistics import Statistics
from vq.calibration.streams import Runner, Stream, Streams
from vq.calibration.weights import Weights
from vq.calibration.whole import Before
from vq.container import Geometry
from vq.distributed import gather, is_main, rank, ranks, require_same, together
from vq.errors import ConfigError
from vq.layers import matrix_of, weight_of
from vq.learning.fitting import BlockPlan, BlockResult
from vq.recipe.selection import Selected

__all__ = ["LayerReport", "LayersDone", "Worker"]

LayersDone = Callable[[int, int, str], None]
"""Called with layers done, layers in all, and the name of the last one."""


@dataclass(frozen=True)
class LayerReport:
    """How one layer went.

    Attributes
    ----------
    geometry : Geometry
    method : str
        What chose its codes: "rtn" for embeddings, whose rows no input mixes, and for layers that
        no token reaches once those before them are rounded; a method without the cross term for
        layers to which the two models give different tokens.
    report : Report
        Of a convolution in groups: sums of the errors, the greatest damping.
    """

    geometry: Geometry
    method: str
    report: Report


class Worker:
    """Quantises the layers of one stage after the other (:mod:`vq.calibration.walk`).

    Attributes
    ----------
    streams : Streams or None
        None if no input matters, so that nothing need run.
    reports : dict of layer name to LayerReport
        Of the layers that are done.
    blocks : list of BlockResult
        Of the blocks that are tuned.
    """

    def __init__(
        self,
        runner: Runner | None,
        before: Before,
        layers: list[Selected],
        method: Method,
        settings: Settings,
        codebooks: CodebookSolver,
        norms: Norms | None,
        activations: ActivationQuantizer | None,
        tuning: BlockPlan | None,
        progress: LayersDone | None,
    ) -> None:
        self.reports: dict[str, LayerReport] = {}
        self.blocks: list[BlockResult] = []
        self._before = before
        self._layers = {layer.name: layer for layer in layers}
        self._method, self._settings, self._progress = method, settings, progress
        self._activations, self._codebooks, self._norms = activations, codebooks, norms
        self._weights = Weights([])
        self._found: dict[str, Quantized | Coded] = {}
        self._shared: dict[str, nn.Parameter] = {}
        self._methods: dict[str, str] = {}
        correction = method.correction()
        self.streams: Streams | None = None
        if runner is not None and (correction is not None or settings.measure):
            compares = tuning is not None or settings.measure
            compares |= correction is not None and correction.cross
            reference = Stream(runner, self._unquantised) if compares else None
            alike = activations is None and not rounds(runner.model)
            self.streams = Streams(Stream(runner), reference, alike=alike)
        self._tuner: Tuner | None = None
        if tuning is not None:
            assert self.streams is not None
            self._tuner = Tuner(self.streams, layers, tuning)

    @contextmanager
    def _unquantised(self, stage: Stage) -> Iterator[None]:
        """Turn the model into the unquantised one, as far as the present stage."""
        norms = nullcontext() if self._norms is None else self._norms.as_given()
        assert self.streams is not None
        model = self.streams.changed.runner.model
        with self._weights.unquantised(), norms, unrounded(model, self._activations):
            yield

    @contextmanager
    def at(self, stage: Stage) -> Iterator[None]:
        """Keep both weights of a stage's layers; in the end, store the codes in their modules."""
        layers = [self._layers[name] for name in stage.layers]
        self._weights = Weights(layers)
        self._measure_norms(stage)
        yield
        for layer in layers:
            weight = layer.modules[0].weight
            assert isinstance(weight, nn.Parameter)
            self._before.put_away(weight)
            replace_weight(layer.modules, self._found.pop(layer.name), self._shared)
            self._before.drop(weight)
        self._weights = Weights([])

    def do(self, stage: Stage) -> dict[str, Any]:
        """Choose the codes of a stage's layers and use them from then on."""
        layers = [self._layers[name] for name in stage.layers]
        groups: list[Group] = []
        gatherer = None
        if self.streams is not None:
            rests = partial(unrounded, self.streams.changed.runner.model, self._activations)
            gatherer = Gatherer(self.streams, rests, self._settings.dtype)
            with together():
                groups = gatherer.groups(stage, layers)
        require_same("layers by input", [[x.name for x in group.layers] for group in groups])
        grouped = {layer.name for group in groups for layer in group.layers}
        self._put(stage, self._solve([x for x in layers if x.name not in grouped], None))
        for group in groups:
            assert gatherer is not None
            self._put(stage, self._solve(group.layers, self._gather(gatherer, stage, group)))
        return {
            "tuned": self._tune(stage),
            "layers": {name: pack(self._found[name]) for name in stage.layers},
            "methods": {name: self.reports[name].method for name in stage.layers},
        }

    def _tune(self, stage: Stage) -> dict[str, Any] | None:
        """Tune a stage whose layers are solved; what :meth:`use` needs to know of it."""
        if self._tuner is None or not self._tuner.takes(stage):
            return None
        tuned = self._tuner.tune(stage, self._found, self._weights)
        for name, one in tuned.codes.items():
            self._employ(name, one)
        self._measure_norms(stage)
        self.blocks.append(tuned.result)
        return {"others": tuned.others, "result": asdict(tuned.result)}

    def _gather(self, gatherer: Gatherer, stage: Stage, group: Group) -> list[Statistics] | None:
        """Statistics of layers; None if no token reaches them any more."""
        try:
            statistics = gatherer.gather(stage, group)
        except ConfigError:
            if self._method.correction() is not None:
                raise
            return None  # rounding to nearest would only have measured with them
        return statistics if statistics[0].tokens else None

    def use(self, stage: Stage, state: Mapping[str, Any]) -> None:
        """Use the codes that an earlier run has chosen."""
        stored = state["layers"]
        geometries = {name: self._layers[name].geometry for name in stage.layers}
        self._methods |= state["methods"]
        found = {name: unpack(stored[name], g) for name, g in geometries.items()}
        for one in found.values():
            if isinstance(one, Coded):
                self._codebooks.remember(one)
        self._put(stage, found)
        if (tuned := state["tuned"]) is not None:
            assert self._tuner is not None
            self._tuner.use(tuned["others"], self._weights)
            self._measure_norms(stage)
            self.blocks.append(BlockResult(**tuned["result"]))

    def _solve(
        self, layers: list[Selected], statistics: list[Statistics] | None
    ) -> dict[str, Quantized | Coded]:
        """Quantise layers that share their inputs; every process does some of them."""
        own: dict[str, Quantized | Coded] = {}
        method = self._method_for(layers, statistics)
        self._methods |= {layer.name: method.name for layer in layers}
        together_solved = solved_together(layers)
        with together():
            for part in filter(lambda part: is_coded(part[0]), together_solved):
                self._codebooks.prepare(part)
            for part in together_solved[rank() :: ranks()]:
                originals = {layer.name: self._weights.original(layer.name) for layer in part}
                if is_coded(part[0]):
                    own |= self._codebooks.solve(part, originals, method, statistics)
                    continue
                (layer,), g = part, part[0].geometry
                matrix = matrix_of(originals[layer.name], g.op, g.axis).float()
                own[layer.name] = quantize_parts(matrix, g, method, statistics, self._settings)
        if ranks() == 1:
            return own
        return {name: one for part in gather(own) for name, one in part.items()}

    def _method_for(self, layers: list[Selected], statistics: list[Statistics] | None) -> Method:
        """The method for layers with these statistics; a warning where it is not the one asked."""
        if statistics is None:
            return RTN()
        if (
            self.streams is None
            or self.streams.reference is None
            or statistics[0].cross is not None
        ):
            return self._method
        method = uncrossed(self._method)
        said = f"it was rounded by {method.name}, not {self._method.name}"
        if method == self._method:
            said = "its errors are those on the tokens of the quantised model alone"
        for layer in layers if is_main() else ():
            warnings.warn(
                f"layer {layer.name!r}: other tokens reach it than in the unquantised model, as "
                f"where a model routes them, so that {said}",
                stacklevel=2,
            )
        return method

    def _put(self, stage: Stage, found: dict[str, Quantized | Coded]) -> None:
        """Use codes from now on."""
        for name in (name for name in stage.layers if name in found):
            one = found[name]
            self._employ(name, one)
            if self._method.correction() is not None and not one.report.tokens:
                self._warn(self._layers[name])
            self.reports[name] = LayerReport(one.geometry, self._methods[name], one.report)
            if self._progress is not None and is_main():
                self._progress(len(self.reports), len(self._layers), name)
        if found:
            self._measure_norms(stage)

    def _measure_norms(self, stage: Stage) -> None:
        """Let the batch norms of a stage know what they are fed with by now."""
        if self._norms is None or self.streams is None:
            return
        changed = self.streams.changed
        part, chain = changed.runner.model, changed.runner.chain
        if chain is not None and stage.place is not None:
            part = chain.blocks[stage.place]
        if self._norms.within(part):
            batches = range(len(changed.runner))
            self._norms.measure_(lambda: [changed.run(stage, i) for i in batches], shared=True)

    def _employ(self, name: str, one: Quantized | Coded) -> None:
        g, original = one.geometry, self._weights.original(name)
        decoded = weight_of(one.weight, g.shape, g.op, g.axis)
        self._weights.put(name, decoded.to(original.device, original.dtype).contiguous())
        self._found[name] = one

    def _warn(self, layer: Selected) -> None:
        """Say that a layer was rounded to nearest, unless it is one that always is."""
        if not is_looked_up(layer) and is_main():
            done = (
                "its codewords are the nearest" if is_coded(layer) else "it was rounded to nearest"
            )
            warnings.warn(
                f"layer {layer.name!r}: no token reached it once those before it were rounded, "
                f"so that {done}, not by {self._method.name}; give more data, "
                "or keep it by the recipe",
                stacklevel=2,
            )
