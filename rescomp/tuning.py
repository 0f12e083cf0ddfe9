"""Train a block towards what the unquantised one gives, once its layers are solved.

The blocks that follow are then solved with what the tuned one gives, and make up for what is left.
The training is that of :func:`vq.finetune_blocks_`.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from torch import Tensor, nn

from rescomp.apply import replace_weight
from rescomp.codebooks.quantize import Coded
from rescomp.quantize import Quantized
from vq.calibration.stages import Stage, own_parameters
from vq.calibration.streams import Streams
from vq.calibration.weights import Weights
from vq.calibration.whole import restored
from vq.errors import ConfigError
from vq.formats.model import compressed_layers
from vq.learning.fitting import BlockPlan, BlockResult, Fitter
from vq.learning.rates import Rates, parameter_groups
from vq.learning.rules.signs import Freezing
from vq.recipe.selection import Selected

__all__ = ["Tuned", "Tuner", "Tuning"]


@dataclass(frozen=True)
class Tuning:
    """How blocks are tuned; :func:`vq.finetune_blocks_` explains most of it.

    Attributes
    ----------
    epochs : int
    rates : Rates
        Layers that are kept, and the codes of scalar formats, stay; a rate of 0 leaves others as
        they are, too.
    look_ahead : int
    held_out : float
        Share of the calibration batches, the last ones, that a block does not learn from, but is
        judged on; one at least, unless there is only one. At 0, all serve for both.
    freezing : Freezing or None
        Of signs; None lets all move to the end.
    """

    epochs: int = 8
    rates: Rates = Rates(signs=1e-2, codebooks=3e-3, rest=1e-3, scales=3e-3)  # noqa: RUF009
    look_ahead: int = 0
    held_out: float = 0.125
    freezing: Freezing | None = Freezing()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        plan = self.plan(0)
        if not any((plan.rates.signs, plan.rates.codebooks, plan.rates.rest, plan.rates.scales)):
            raise ConfigError("tuning must have a rate above 0, not none")

    def plan(self, seed: int) -> BlockPlan:
        """The same in the trainer's terms; ``seed`` is that of the order of batches."""
        rates = replace(self.rates, alpha=1.0, kept=0.0)
        rules = () if self.freezing is None else (self.freezing,)
        return BlockPlan(
            self.epochs, rates, self.look_ahead, "changed", False, rules, seed, self.held_out
        )


@dataclass(frozen=True)
class Tuned:
    """What tuning has made of a block.

    Attributes
    ----------
    codes : dict of layer name to Coded
    others : dict of name to Tensor
        Norms and biases, by their names in the model.
    result : BlockResult
    """

    codes: dict[str, Coded]
    others: dict[str, Tensor]
    result: BlockResult


class Tuner:
    """Tunes one block after the other; or the whole model, where it has no blocks.

    Parameters
    ----------
    streams : Streams
        With a reference.
    layers : sequence of Selected
        All of the model. A codebook that several stages share stays.
    plan : BlockPlan
    """

    def __init__(self, streams: Streams, layers: Sequence[Selected], plan: BlockPlan) -> None:
        runner = streams.changed.runner
        self._model, self._chain, self._rates = runner.model, runner.chain, plan.rates
        self._fitter = Fitter(streams, plan, lambda *args, **more: None)
        self._layers = list(layers)

    def takes(self, stage: Stage) -> bool:
        """Whether a stage is one to tune."""
        return stage.place is not None or self._chain is None

    def tune(self, stage: Stage, found: Mapping[str, Quantized | Coded], weights: Weights) -> Tuned:
        """Train a stage whose layers are solved.

        Parameters
        ----------
        found : mapping of layer name to what its solver has found
        weights : Weights
            Of the stage. Norms and biases that learn join them.
        """
        goal = self._fitter.goal(stage)  # the unquantised weights are at hand only before
        own = [layer for layer in self._layers if layer.name in stage.layers]
        coded = [(layer, one) for layer in own if isinstance(one := found[layer.name], Coded)]
        with ExitStack() as stack:
            stack.enter_context(restored([m for layer, _ in coded for m in layer.modules]))
            books: dict[str, nn.Parameter] = {}
            for layer, one in coded:
                replace_weight(layer.modules, one, books)
            for name in self._shared(stage) & books.keys():
                books[name].requires_grad_(False)
            others = self._others(stage)
            for name, parameter in others.items():
                weights.split(name, parameter)
            result = self._fitter.fit(stage, goal)
            codes = {layer.name: _read(layer, one) for layer, one in coded}
        return Tuned(codes, {name: weights.current(name) for name in others}, result)

    def use(self, others: Mapping[str, Tensor], weights: Weights) -> None:
        """Take norms and biases that an earlier run has tuned."""
        for name, value in others.items():
            parameter = self._model.get_parameter(name)
            weights.split(name, parameter)
            weights.put(name, value.to(parameter.device))

    def _shared(self, stage: Stage) -> set[str]:
        """Codebooks that other stages have, too."""
        return {
            str(layer.geometry.codebook)
            for layer in self._layers
            if layer.geometry.k and layer.name not in stage.layers
        }

    def _others(self, stage: Stage) -> dict[str, nn.Parameter]:
        """What learns in a stage besides its layers' weights."""
        part = self._fitter.part(stage)
        groups = parameter_groups(part, self._rates)
        learns = {id(parameter) for group in groups for parameter in group["params"]}
        trained = {id(t) for layer in compressed_layers(part) for t in layer.originals}
        return {
            name: parameter
            for name, parameter in own_parameters(self._model, self._chain, stage).items()
            if id(parameter) in learns - trained
        }


def _read(layer: Selected, one: Coded) -> Coded:
    """What a layer has become."""
    trained = next(compressed_layers(layer.modules[0]))
    assert trained.lookup is not None
    return one.retrained(trained.lookup, trained.originals)
