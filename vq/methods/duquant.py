"""DuQuant: outliers of activations spread by rotations and a permutation (arXiv 2406.01721).

The published code tells smoothing, the greedy rotation of all blocks by one matrix, the zigzag
permutation, and their numbers (block 128, up to 256 steps, alpha 0.6, or 0.5 with clipping,
activations cut to 0.9 of their range where nothing clips weights). That rotations are judged by the
tokens of the largest values, that linears which read one tensor share a transform, what is left
out, and all that :mod:`vq.methods.lwc` and :mod:`vq.methods.sde` name are ours.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Unpack

import torch
from torch import Tensor, nn

from vq.activations.rounding import Rounding
from vq.activations.runtime import attach, attached
from vq.activations.spreading import block_of, spreading
from vq.activations.transform import Transform
from vq.calibration.batches import Batch, as_it_was, each
from vq.calibration.gathering import Group
from vq.calibration.memory import enough_memory
from vq.calibration.peaks import linears_of, peaks_of, readers_of
from vq.calibration.survey import without_cache
from vq.calibration.whole import whole
from vq.errors import ConfigError, bulleted
from vq.formats.remaining import require_plain
from vq.layers import matrix_of, weight_of
from vq.perturbation.composition import Clip, Composition, Perturb
from vq.perturbation.door import LearnedResult, Running, learn_scalars_
from vq.progress import track
from vq.recipe.recipe import Recipe
from vq.recipe.selection import Selected, check_finite, select

__all__ = ["Spread", "duquant_", "spread_"]

#: Tokens by which the rotations of a tensor are judged.
_TOKENS = 64
_ALPHA = {True: 0.5, False: 0.6}
#: Share of a token's range that is kept where weights are not clipped.
_CUT = 0.9


@dataclass
class Spread:
    """What :func:`spread_` did.

    Attributes
    ----------
    groups : list of list of str
        Layers that share a transform.
    blocks : list of int
        Size of its blocks, of every group.
    left_out : dict of str to str
        Selected layers without a transform, and why.
    """

    groups: list[list[str]] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def duquant_(
    model: nn.Module,
    batches: Iterable[Batch],
    recipe: Recipe,
    *,
    activation_bits: int | None = 4,
    symmetric: bool = False,
    alpha: float | None = None,
    block: int = 128,
    steps: int = 256,
    clip: Clip | None = Clip(),  # noqa: B008 - frozen
    perturb: Perturb | None = None,
    **running: Unpack[Running],
) -> LearnedResult:
    """Spread outliers, round activations by token, and let what is left learn block by block.

    1. :func:`spread_`: ``y = x W'`` becomes ``y = (x R) (W R^-T)'``.
    2. The inputs of all selected linears are rounded, every token on its own grid, from then on:
       while blocks learn, and in every run of the model and of its file.
    3. :func:`vq.perturbation.door.learn_scalars_` on the transformed weights: clipping, or a
       perturbation of their singular values beside it (SDE), which are those of ``W R^-T``.

    What remains at run time is stored with the model (``vqstream/2``).

    Parameters
    ----------
    model, batches, recipe
        As in :func:`vq.perturbation.door.learn_scalars_`, which tells the errors, too.
    activation_bits : int or None
        2 to 8; None leaves activations as they are.
    symmetric : bool
        Of their grids.
    alpha : float, optional
        Of the smoothing; 0.6, or 0.5 with clipping, if not given.
    block, steps
        As in :func:`spread_`.
    clip : Clip or None
        Without it, activations are cut to 0.9 of each token's range.
    perturb : Perturb or None
    running
        As there; ``seed`` also draws the rotations.
    """
    composition = Composition(perturb, clip)
    if running.get("activations") is not None:
        raise ConfigError("activations must be left out of DuQuant, which rounds them itself")
    rounding = None
    if activation_bits is not None:
        cut = 1.0 if clip is not None else _CUT
        rounding = Rounding(activation_bits, symmetric=symmetric, clip=cut)
    data = list(each(batches))
    with attached(model), whole(model):
        spread_(
            model, data, recipe,
            alpha=_ALPHA[clip is not None] if alpha is None else alpha,
            block=block, steps=steps, seed=running.get("seed", 0),
            progress=running.get("progress", True),
        )  # fmt: skip
        if rounding is not None:
            names = [one.name for one in linears_of(select(model, recipe).layers)]
            attach(model, rounding, names)
        return learn_scalars_(model, data, recipe, composition, **running)


@torch.inference_mode(mode=False)
@torch.no_grad()
def spread_(
    model: nn.Module,
    batches: Iterable[Batch],
    recipe: Recipe,
    *,
    alpha: float = _ALPHA[False],
    block: int = 128,
    steps: int = 256,
    seed: int = 0,
    progress: bool = True,
) -> Spread:
    """Put transforms before the linears that a recipe selects, and their inverses into weights.

    The model computes what it did. Linears that read one tensor share a transform: smoothing, a
    rotation within blocks of channels, a permutation, another rotation. What comes afterwards,
    learning, compensation or :func:`vq.compress_`, works on the transformed weights, and the file
    has the transforms. Whatever fails, the model stays as it was.

    Parameters
    ----------
    model : nn.Module
        In float32, bfloat16, float16 or float64.
    batches : iterable of batches
        As in :func:`vq.perturbation.door.learn_scalars_`.
    recipe : Recipe
        Linears that it does not select stay as they are. So do selected layers of other kinds,
        with a tied weight or with an odd number of inputs; the result names them.
    alpha : float
        Share of the inputs' range that smoothing moves to weights, 0 to 1.
    block : int
        Channels that are rotated together, a power of two; if it does not divide a layer's inputs,
        the largest that does.
    steps : int
        Of each greedy rotation, at most.
    seed : int
        Of the rotations.
    progress : bool
        Show a progress bar when standard error is a terminal.

    Returns
    -------
    Spread

    Raises
    ------
    ConfigError
        If a setting is impossible, something remains in the model already, no layer can have a
        transform, or data are missing or not what the model takes.
    WeightError
        If a weight is not finite.
    """
    problems = []
    if not 0 <= alpha <= 1:
        problems.append(f"alpha must be 0 to 1, not {alpha!r}")
    if steps < 1:
        problems.append(f"steps must be positive, not {steps!r}")
    if problems:
        raise ConfigError(bulleted("DuQuant", problems))
    block_of(block, block)  # says if it is no power of two
    require_plain(model, "DuQuant")
    data = list(each(batches))
    selected = select(model, recipe).layers
    check_finite(selected)
    found = Spread(left_out=_left_out(selected))
    able = [layer for layer in selected if layer.name not in found.left_out]
    if not able:
        raise ConfigError(
            "DuQuant must find linears of which 2 divides the inputs, in a weight of their own, "
            "among the selected layers, not none"
        )
    generator = torch.Generator().manual_seed(seed)
    with attached(model), whole(model), as_it_was(model), without_cache(model), enough_memory():
        model.eval()
        groups = readers_of(model, data, able)
        peaks = peaks_of(model, data, groups, _TOKENS)
        ran = {layer.name for group in groups for layer in group.layers}
        found.left_out |= {x.name: "never runs" for x in able if x.name not in ran}
        both = list(zip(groups, peaks, strict=True))
        for group, own in track(both, "rotating", enabled=progress):
            first = group.layers[0]
            size = block_of(first.geometry.I, block)
            wide = torch.float64 if first.weight.dtype == torch.float64 else torch.float32
            part = spreading(
                own, _columns(group), alpha=alpha, block=size, steps=steps,
                generator=generator, dtype=wide,
            )  # fmt: skip
            _carry(model, group, part)
            found.groups.append([layer.name for layer in group.layers])
            found.blocks.append(size)
    return found


def _left_out(layers: list[Selected]) -> dict[str, str]:
    """Layers that cannot have a transform, and why."""
    able = {layer.name for layer in linears_of(layers)}
    found = {}
    for layer in layers:
        if layer.name not in able:
            tied = len(layer.modules) > 1
            found[layer.name] = "its weight is tied" if tied else f"it is a {layer.geometry.op}"
        elif layer.geometry.I % 2:
            found[layer.name] = f"it has {layer.geometry.I} inputs, an odd number"
    return found


def _matrix(layer: Selected) -> Tensor:
    return matrix_of(layer.weight, layer.geometry.op, layer.geometry.axis)


def _columns(group: Group) -> Tensor:
    """Greatest magnitude of every column, over all weights that read a tensor."""
    peaks = [_matrix(layer).float().abs().amax(dim=0) for layer in group.layers]
    return torch.stack(peaks).amax(dim=0)


def _carry(model: nn.Module, group: Group, part: Transform) -> None:
    """Put a transform before the linears of a group, and its inverse into their weights."""
    for layer in group.layers:
        g, weight = layer.geometry, layer.modules[0].weight
        assert isinstance(weight, nn.Parameter)
        carried = part.carried(_matrix(layer))
        weight.data = weight_of(carried, g.shape, g.op, g.axis).to(weight.dtype).contiguous()
    attach(model, part, [layer.name for layer in group.layers])
