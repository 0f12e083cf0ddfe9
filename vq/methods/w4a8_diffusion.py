"""Diffusion networks at W4A8 that draw what the original draws ("Efficiency Meets Fidelity", arXiv
2412.06661).

Reported are the parts and their order: time information that is precalculated, activations
quantised by time step, a serial-to-parallel pipeline, inter-layer distillation, selective freezing,
and, in its first version, mixed precision. The paper's equations, rates, schedules and tables are
not known to us: what the parts are made of here is a reconstruction (docs/diffusion.md says which
part is whose), and none of its numbers are quoted.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from vq.activations.runtime import attached
from vq.activations.timesteps import TimedLayer, round_in_time_
from vq.activations.timetables import TimeTables, tabulate_
from vq.calibration.batches import as_it_was, fingerprint
from vq.calibration.dependence import dependence
from vq.calibration.pools import Forward, Pool, Pools, serial
from vq.calibration.sampling import Draw, Sampler
from vq.calibration.whole import whole
from vq.clustering.cluster import KMeans
from vq.container import Geometry, Provenance, account
from vq.container.header import canonical_json
from vq.errors import ConfigError
from vq.formats.clip import Clip, fit_grid
from vq.formats.format import Format, Original
from vq.formats.model import compressed_layers, set_provenance
from vq.formats.remaining import require_plain
from vq.formats.scalar import Int8
from vq.formats.scalar_weights import ScalarWeight
from vq.formats.weights import Compressed, attach_all
from vq.layers import matrix_of
from vq.learning.alone import sqnr_alone
from vq.learning.checkpoint import StageCheckpoints
from vq.learning.finetune import finetune_
from vq.learning.fitting import BlockResult
from vq.learning.objective import Distillation
from vq.learning.observed import Observed, Seen, block_error, blocks_of
from vq.learning.rates import Rates
from vq.learning.record import FinetuneResult
from vq.learning.rules.codes import CodeFreezing
from vq.learning.rules.quality import Quality
from vq.learning.rules.rule import RuleSettings
from vq.learning.rules.signs import Freezing
from vq.learning.rules.steps import Steps
from vq.methods.assignments import Training
from vq.recipe.planning import check_storable
from vq.recipe.recipe import Recipe
from vq.recipe.selection import Selected, check_finite, select
from vq.version import TOOL

__all__ = ["Learning", "Scheme", "W4A8Layer", "W4A8Result", "w4a8_diffusion_"]

#: Least squared error.
_SEARCH = Clip(power=2.0)
_CALLS = 4


@dataclass(frozen=True)
class Scheme:
    """How weights and activations are rounded at the start.

    Attributes
    ----------
    bits : int
        Of what layers read, 2 to 8.
    ends : int or None
        Of what the first and the last layer on the image's way read, whose weights are then int8;
        None treats them as all others.
    sensitive : int
        So many further layers are int8: those that cost most by themselves at the output.
    rows : int or None
        Of every table of scales: None is one for each time step, 1 static scheme.
    symmetric : bool
        Levels of activations lie about 0, as integer graphs have them, or reach from end to end.
    search : bool
        Grids of weights and activations are those of least squared error, not of the whole range.
    tables : bool
        What depends on the time step alone becomes tables, and leaves the model.
    classes : int or None
        What depends on step and class alone does so, too: classes are below this number.
    images : int
        Calibrate on the original's course from so many noises.
    """

    bits: int = 8
    ends: int | None = 8
    sensitive: int = 0
    rows: int | None = None
    symmetric: bool = True
    search: bool = True
    tables: bool = True
    classes: int | None = None
    images: int = 16


@dataclass(frozen=True)
class Learning:
    """How the rounded model learns from the original.

    Attributes
    ----------
    rounds : int
        Pools that are drawn, one after another, each handed out once; 0 learns nothing.
    seeds, batch : int
        Images of a pool, and rows of a batch.
    policy : "own", "original" or "noised"
        Whose course the latents of a pool are of: the rounded model's as it is by then, the
        original's, or that of images which noise is added to.
    shuffled : bool
        Over seeds and steps. If not, batches go from noise to image, one step after another.
    distil : float
        Weight of the mean over blocks of the error of what they give, in units of the variance of
        the original's; beside it stands the squared error of the predicted noise.
    freeze : float
        Share of the layers, the best ones, whose weights rest in each round after the first.
    oscillation : CodeFreezing or None
        Freeze weights that go to and fro between codes.
    weights, steps : float
        Rates of AdamW: of weights, and of all steps in units of each.
    signs, codebooks : float
        Rates where a layer is stored in codewords.
    """

    rounds: int = 8
    seeds: int = 64
    batch: int = 16
    policy: str = "own"
    shuffled: bool = True
    distil: float = 0.5
    freeze: float = 0.25
    oscillation: CodeFreezing | None = None
    weights: float = 2e-4
    steps: float = 1e-3
    signs: float = 1e-2
    codebooks: float = 1e-2


@dataclass(frozen=True)
class W4A8Layer:
    """How one layer went.

    Attributes
    ----------
    geometry : Geometry
    activation_bits : int
    rows : int
        Of its table of scales.
    error, shared_error : float
        As :class:`vq.activations.timesteps.TimedLayer` has them, before anything learnt.
    """

    geometry: Geometry
    activation_bits: int
    rows: int
    error: float
    shared_error: float


@dataclass(frozen=True)
class W4A8Result:
    """What :func:`w4a8_diffusion_` did.

    Attributes
    ----------
    layers : list of W4A8Layer
        In model order.
    kept : list of str
        Layers that were left alone.
    tables : TimeTables or None
    training : FinetuneResult or None
    """

    layers: list[W4A8Layer]
    kept: list[str]
    tables: TimeTables | None
    training: FinetuneResult | None
    blocks: ClassVar[list[BlockResult]] = []

    @property
    def bits_per_weight(self) -> float:
        """Bits per weight over the quantised layers: scales, zeros and padding counted."""
        counted = account([layer.geometry for layer in self.layers])
        return 8 * sum(a.total_bytes for a in counted) / sum(a.geometry.weights for a in counted)


def w4a8_diffusion_(
    model: nn.Module,
    sampler: Sampler,
    draw: Draw,
    recipe: Recipe,
    *,
    scheme: Scheme = Scheme(),
    learning: Learning = Learning(),
    forward: Forward | None = None,
    **training: Unpack[Training],
) -> W4A8Result:
    """Quantise a noise predictor for the steps of a sampler, in place, without images.

    1. *Time tables*: the original computes what depends on the step alone, once for every step;
       that part leaves the model.
    2. *Mixed precision*: the first and the last layer, and the most sensitive ones, are int8.
    3. *Starts*: grids of weights by output, and tables of activation scales by step, each of least
       squared error, on the original's course.
    4. *Serial*: the rounded model draws from pure noise; what it meets is pooled.
       *Parallel*: the pool, shuffled over seeds and steps, teaches weights and all steps to give
       what the original gives there, at the output and in the blocks. The best layers' weights
       rest. Then the next pool.
    5. What is stored are codes, scales and tables.

    Whatever fails, Ctrl-C among it, the model stays as it was; with ``checkpoint_dir``, the same
    call goes on with ``resume``, bit for bit on CPU.

    Parameters
    ----------
    model : nn.Module
        Called with (noisy [B, ...], time steps [B], conditions [B, ...]); gives the noise.
    sampler : Sampler
        With nothing random on its way. The quantised model serves its steps only.
    draw : Draw
        Makes noise and conditions to start from.
    recipe : Recipe
        Of linears and convolutions; layers that tables stand for drop out of it.
    scheme : Scheme
    learning : Learning
    forward : Forward, optional
        Images for the policy "noised".
    training
        As in :func:`vq.finetune_`, which tells the errors, too. ``seed`` is that of all noise.

    Raises
    ------
    RecipeError, UnsupportedLayerError, WeightError
        If the recipe does not fit the model.
    ConfigError
        If a setting is impossible, the time path is not found, or latents are not finite.
    ResumeError
        If the checkpoints belong to another run or are damaged.
    """
    seed = training.get("seed") or 0
    require_plain(model, "w4a8-diffusion")
    selection = select(model, recipe)
    check_finite(selection.layers)
    original = copy.deepcopy(model).eval().requires_grad_(False)
    pools = Pools(
        sampler, model, original, draw,
        seeds=learning.seeds, batch=learning.batch, policy=learning.policy,
        shuffled=learning.shuffled, forward=forward, seed=seed,
    )  # fmt: skip
    rules = _rules(learning, original, pools)
    _check(scheme, learning, selection.layers)
    with whole(model, trained=True), attached(model):
        start = draw(scheme.images, torch.Generator().manual_seed(seed))
        met = serial(sampler, original, start)
        tables = None
        if scheme.tables:
            one = tuple(part[:1] for part in met[0])  # as the original gives it for one image
            tables = tabulate_(model, sampler.steps, one, classes=scheme.classes)
        mixed = Recipe(_mixed(model, selection.layers, scheme, met, seed))
        chosen = select(model, mixed)
        check_storable(model, chosen)
        for layer in chosen.layers:
            _compress(layer, scheme.search, seed)
        set_provenance(
            model, Provenance(TOOL, canonical_json(mixed.to_json()), seed, fingerprint(met))
        )
        bits = dict.fromkeys(mixed.rules, scheme.bits)
        timed = round_in_time_(
            model, met, bits | _ends(model, list(bits), met[0], scheme), sampler.steps,
            rows=scheme.rows, symmetric=scheme.symmetric,
            percentile=None if scheme.search else 100,
        )  # fmt: skip
        trained = None
        if learning.rounds:
            _mark(training, [scheme, learning, list(sampler.steps), draw, forward])
            trained = _learn(model, original, pools, rules, learning, training)
        model.eval()
    return W4A8Result(_results(chosen.layers, timed), chosen.kept, tables, trained)


def _rules(learning: Learning, original: nn.Module, pools: Pools) -> list[RuleSettings]:
    """What acts between two steps."""
    rules: list[RuleSettings] = [Steps(learning.steps)]
    rules += [learning.oscillation] if learning.oscillation else []
    if learning.freeze:
        rules.append(Quality(learning.freeze, original, lambda: pools.some(_CALLS)))
    return rules


def _learn(
    model: nn.Module,
    original: nn.Module,
    pools: Pools,
    rules: Sequence[RuleSettings],
    learning: Learning,
    training: Training,
) -> FinetuneResult:
    """Let weights and steps learn; all else stays."""
    own = {id(tensor) for layer in compressed_layers(model) for tensor in layer.originals}
    blocks = blocks_of(model) if learning.distil else []
    settings: dict[str, Any] = dict(training)
    if (folder := settings.get("checkpoint_dir")) is not None:
        settings["checkpoint_dir"] = Path(folder) / "rounds"
    books = any(layer.lookup is not None for layer in compressed_layers(model))
    with as_it_was(model):
        for parameter in model.parameters():
            parameter.requires_grad_(id(parameter) in own)
        return finetune_(
            Observed(model, blocks),
            pools,
            epochs=learning.rounds,
            rates=Rates(learning.signs, learning.codebooks, 0.0, kept=learning.weights),
            freezing=Freezing() if books else None,
            rules=rules,
            teacher=Observed(original, blocks),
            distillation=Distillation(weight=1, loss=_Agreement(learning.distil)),
            **settings,
        )


class _Agreement:
    """Squared error of the predicted noise, and that of blocks in units of their variance."""

    def __init__(self, distil: float) -> None:
        self._distil = distil

    def __call__(self, seen: Seen, wanted: Seen) -> Tensor:
        error = nn.functional.mse_loss(seen.result, wanted.result)
        if not self._distil:
            return error
        return error + self._distil * block_error(seen, wanted, relative=True)


def _mixed(
    model: nn.Module, layers: Sequence[Selected], scheme: Scheme, met: Pool, seed: int
) -> dict[str, Format | None]:
    """Formats by layer, of those that are left: int8 for the ends and the most sensitive ones."""
    held = dict(model.named_modules())
    left = {x.name: x for x in layers if getattr(held.get(x.name), "weight", None) is not None}
    if not left:
        raise ConfigError("recipe must select a layer that no time table stands for, not none")
    wide = list(_ends(model, list(left), met[0], scheme))
    if scheme.sensitive:
        others = {n: _rounded(x, scheme.search, seed) for n, x in left.items() if n not in wide}
        wide += list(sqnr_alone(model, others, met))[: scheme.sensitive]
    return {name: Int8() if name in wide else x.format for name, x in left.items()}


def _ends(
    model: nn.Module, names: Sequence[str], inputs: tuple[Tensor, ...], scheme: Scheme
) -> dict[str, int]:
    """The first and the last of layers that see the image, with the bits of what they read."""
    if scheme.ends is None:
        return {}
    called = ["image", *(f"argument {i}" for i in range(1, len(inputs)))]
    reads = dependence(model, inputs, called).reads
    seen = [n for n, on in reads.items() if n in names and any("image" in one for one in on)]
    return dict.fromkeys([*seen[:1], *seen[-1:]], scheme.ends)


def _compressed(layer: Selected, search: bool, seed: int) -> Compressed:
    """A layer's weight as its format has it; of scalars, on a grid that stays."""
    g, weight = layer.geometry, layer.weight
    if layer.format.takes_codes:
        matrix = matrix_of(weight, g.op, g.axis)
        return ScalarWeight(g, weight, fit_grid(matrix, g, _SEARCH if search else None))
    original = Original(g, weight, None, layer.per_output)
    (found,) = layer.format.compress([original], KMeans(seed))
    return found


def _rounded(layer: Selected, search: bool, seed: int) -> Tensor:
    """What a layer's weight would become."""
    return _compressed(layer, search, seed).approximation(layer.weight)


def _compress(layer: Selected, search: bool, seed: int) -> None:
    """Let a layer's modules have it."""
    found = _compressed(layer, search, seed)
    originals = found.originals(layer.weight)
    attach_all(layer.modules, found, dict(zip(found.roles, originals, strict=True)))


def _results(layers: Sequence[Selected], timed: Sequence[TimedLayer]) -> list[W4A8Layer]:
    by_name = {one.name: one for one in timed}
    rows = [(layer.geometry, by_name[layer.name]) for layer in layers]
    return [W4A8Layer(g, one.bits, len(one.scale), one.error, one.shared_error) for g, one in rows]


def _mark(training: Mapping[str, Any], settings: Sequence[object]) -> None:
    """Leave with the checkpoints what they depend on beside what training knows of."""
    if (folder := training.get("checkpoint_dir")) is None:
        return
    resume = bool(training.get("resume"))
    store = StageCheckpoints(Path(folder) / "start", {"settings": repr(settings)}, resume=resume)
    if store.load(0) is None:
        store.save(0, {})


def _check(scheme: Scheme, learning: Learning, layers: Sequence[Selected]) -> None:
    """Refuse what cannot be done before any work."""
    if not layers:
        raise ConfigError("recipe must select at least one layer, not none")
    for name, value, least in (
        ("images", scheme.images, 1),
        ("sensitive", scheme.sensitive, 0),
        ("rounds", learning.rounds, 0),
        ("distil", learning.distil, 0),
    ):
        if not value >= least:
            raise ConfigError(f"{name} must be at least {least}, not {value!r}")
