"""PrefixQuant: outlier tokens kept in front, so that static scales do (arXiv 2410.05265).

The published code tells what an outlier token is (64 times the median of its sequence, in what
``down_proj`` reads), how many are put in front (the mean count of the layer that has most), that
the beginning of text is the last of them, that their keys and values are kept in full precision,
scales by tensor that are searched for, and that blocks are trained, all weights among it. That
scales stay as they were found, that keys of the prefix stand before position 0, rates, and all that
:mod:`vq.methods.lwc` names are ours. Rotations, which the paper has beside these, are
:func:`vq.calibration.rotation.rotate_` or :func:`vq.methods.duquant.spread_`, called before. Keys
and values of the text are not rounded.
"""

import inspect
import warnings
from collections.abc import Iterable, Sequence
from typing import Unpack

import torch
from torch import Tensor, nn

from vq import distributed
from vq.activations.prefix import attentions, prefixes
from vq.activations.rounding import Rounding, searched_scale
from vq.activations.runtime import attach, attach_prefixes, attached
from vq.calibration.batches import (
    Batch,
    as_it_was,
    call_model,
    device_of,
    each,
    split,
    tensors_of,
    to_device,
)
from vq.calibration.lengths import check_length, length_limit, text_config, tokens_in
from vq.calibration.memory import enough_memory
from vq.calibration.outliers import outlier_tokens
from vq.calibration.peaks import linears_of, readers_of, samples_of
from vq.calibration.survey import without_cache
from vq.errors import ConfigError
from vq.formats.remaining import all_remaining, remaining
from vq.perturbation.composition import Clip, Composition, Perturb
from vq.perturbation.door import LearnedResult, Running, learn_scalars_
from vq.recipe.recipe import Recipe
from vq.recipe.selection import Selected, select

__all__ = ["prefix_", "prefixquant_", "round_statically_"]

#: Tokens on which scales are judged.
_TOKENS = 512
#: Squared error, relative to its square, of what a model gives with its prefix.
_SAME = 1e-3


def prefixquant_(
    model: nn.Module,
    batches: Iterable[Batch],
    recipe: Recipe,
    *,
    activation_bits: int | None = 4,
    prefix: Sequence[int] | None = None,
    bos: int | None = None,
    clip: Clip | None = Clip(),  # noqa: B008 - frozen
    perturb: Perturb | None = Perturb(None),  # noqa: B008 - frozen
    **running: Unpack[Running],
) -> LearnedResult:
    """Keep outlier tokens in front, round activations on static scales, and let blocks learn.

    1. :func:`prefix_`: tokens that draw outliers stand before every text from then on. A model
       that cannot have them, such as an encoder, goes without, with a warning.
    2. :func:`round_statically_`: every tensor that selected linears read is rounded on one scale.
    3. :func:`vq.perturbation.door.learn_scalars_`: all weights, or a perturbation of their singular
       values (SDE), with clipping.

    What remains at run time is stored with the model (``vqstream/2``).

    Parameters
    ----------
    model, batches, recipe
        As in :func:`vq.perturbation.door.learn_scalars_`, which tells the errors, too.
    activation_bits : int or None
        2 to 8; None leaves activations as they are.
    prefix, bos
        As in :func:`prefix_`.
    clip : Clip or None
    perturb : Perturb or None
        All weights by themselves if not given.
    running
        As there.
    """
    composition = Composition(perturb, clip)
    if running.get("activations") is not None:
        raise ConfigError("activations must be left out of PrefixQuant, which rounds them itself")
    if activation_bits is not None:
        Rounding(activation_bits)  # says what is wrong with it
    data = list(each(batches))
    _require_fresh(model)
    with attached(model):
        prefix_(model, data, recipe, prefix=prefix, bos=bos)
        if activation_bits is not None:
            round_statically_(model, data, recipe, activation_bits)
        return learn_scalars_(model, data, recipe, composition, **running)


@torch.inference_mode(mode=False)
@torch.no_grad()
def prefix_(
    model: nn.Module,
    batches: Iterable[Batch],
    recipe: Recipe,
    *,
    prefix: Sequence[int] | None = None,
    bos: int | None = None,
) -> list[int]:
    """Let outlier tokens stand before every text: their keys and values are kept, unrounded.

    They are run once, at the positions before 0, so that a text still begins at 0. Every module
    that attends sees them, in all later runs, with and without a cache.

    Parameters
    ----------
    model : nn.Module
        A causal language model that is called with tokens and ``position_ids``, whose positions
        are relative, and that attends by torch's ``scaled_dot_product_attention``.
    batches : iterable of batches
        Of tokens.
    recipe : Recipe
        Outliers are looked for in what the selected linears with most inputs read, which is
        ``down_proj`` in a Llama.
    prefix : sequence of int, optional
        These tokens, instead of those that are found. Where no token of the calibration is an
        outlier, none are.
    bos : int, optional
        Token that begins a text, the last of the prefix; by default the model's, if it names one.

    Returns
    -------
    list of int
        The tokens in front; none, with a warning, where the model cannot have them or needs none.

    Raises
    ------
    ConfigError
        If a prefix or a rounding remains in the model already; if the prefix is not among the
        tokens that it knows, longer than its context, or too long beside the calibration; if its
        positions are not relative.
    """
    _require_fresh(model)
    data = list(each(batches))
    with attached(model), as_it_was(model), without_cache(model), enough_memory():
        model.eval()
        if (problem := _problem(model, data)) is not None:
            if prefix is not None:
                raise ConfigError(f"prefix must be of a model that can have one, but {problem}")
            _warn(f"no tokens are put in front, as {problem}: activations have static scales only")
            return []
        if prefix is None:
            ids, count = outlier_tokens(model, data, _widest(select(model, recipe).layers))
            first = _bos_of(model, bos)
            ids += [first] if count and first is not None else []
        else:
            ids = list(prefix)
        if not ids:
            _warn("no tokens are put in front, as none is an outlier, or the model names no first")
            return []
        _check_tokens(model, data, ids)
        found = prefixes(model, torch.tensor(ids, device=device_of(model)))
        front = _outputs(model, data[0], ids)
        attach_prefixes(model, found)
        _require_same(front, _outputs(model, data[0], []))
    return ids


@torch.inference_mode(mode=False)
@torch.no_grad()
def round_statically_(
    model: nn.Module, batches: Iterable[Batch], recipe: Recipe, bits: int
) -> dict[str, float]:
    """Round what selected linears read, on one scale for every tensor, from now on.

    Parameters
    ----------
    model : nn.Module
    batches : iterable of batches
    recipe : Recipe
    bits : int
        2 to 8.

    Returns
    -------
    dict of layer name to float
        Scales: of least squared error on tokens of the calibration, as the model is now. Linears
        that read one tensor share one.

    Raises
    ------
    ConfigError
        If something rounds the inputs already, no linear is selected, or data are missing.
    """
    data = list(each(batches))
    layers = linears_of(select(model, recipe).layers)
    if not layers:
        raise ConfigError("activations to round must have at least one linear layer, not none")
    doubled = [
        layer.name
        for layer in layers
        if any(one.kind == "rounding" for one in remaining(layer.modules[0]))
    ]
    if doubled:
        raise ConfigError(
            f"activations to round must not be rounded already, as those of {', '.join(doubled)} "
            "are by what remains in the model"
        )
    found: dict[str, float] = {}
    with as_it_was(model), without_cache(model), enough_memory():
        model.eval()
        groups = readers_of(model, data, layers)
        samples = samples_of(model, data, groups, _TOKENS)
        for group, rows in zip(groups, samples, strict=True):
            names = [layer.name for layer in group.layers]
            scale = searched_scale([rows], bits)
            attach(model, Rounding(bits, scale=scale), names)
            found |= dict.fromkeys(names, float(scale))
    return found


def _widest(layers: Sequence[Selected]) -> list[Selected]:
    """Linears with most inputs."""
    linears = linears_of(layers)
    if not linears:
        raise ConfigError("activations to round must have at least one linear layer, not none")
    most = max(layer.geometry.I for layer in linears)
    return [layer for layer in linears if most == layer.geometry.I]


def _require_fresh(model: nn.Module) -> None:
    kinds = {one.kind for one in all_remaining(model)} - {"transform"}
    if kinds:
        raise ConfigError(
            "PrefixQuant must be given a model without prefix and rounding, but parts remain in it "
            f"at run time ({', '.join(sorted(kinds))}); give a fresh one"
        )


def _problem(model: nn.Module, data: list[Batch]) -> str | None:
    """Why a model cannot have tokens in front."""
    if any(tokens_in(batch) is None for batch in data):
        return "the calibration is not of tokens"
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return f"{type(model).__name__} takes no position_ids"
    inputs = to_device(split(data[0])[0], device_of(model))
    seen = attentions(model, lambda: call_model(model, inputs))
    if not seen:
        return (
            f"{type(model).__name__} does not attend by torch's scaled_dot_product_attention "
            "(attn_implementation 'sdpa')"
        )
    ahead = [name for name, one in seen.items() if one.looks_ahead]
    if ahead:
        return f"{type(model).__name__} is not causal: {ahead[0]} sees tokens behind their place"
    return None


def _bos_of(model: nn.Module, given: int | None) -> int | None:
    if given is not None:
        return given
    own = getattr(text_config(model), "bos_token_id", None)
    return own if isinstance(own, int) else None


def _check_tokens(model: nn.Module, data: list[Batch], ids: Sequence[int]) -> None:
    limit = length_limit(model)
    if limit is not None and len(ids) >= limit:
        raise ConfigError(
            f"prefix must be shorter than the model's context of {limit} tokens, not {len(ids)}"
        )
    config = text_config(model)
    known = getattr(config, "vocab_size", getattr(config, "vocabulary", None))
    wrong = [token for token in ids if token < 0 or (known is not None and token >= known)]
    if wrong:
        raise ConfigError(f"prefix must be of tokens that the model knows, not hold {wrong[0]}")
    check_length(model, data, more=len(ids))


def _outputs(model: nn.Module, batch: Batch, front: Sequence[int]) -> Tensor:
    """What a model gives for the first text of a batch, with tokens in front."""
    tokens = tokens_in(batch)
    assert tokens is not None
    row = torch.cat([torch.tensor(front, dtype=tokens.dtype), tokens[0].cpu()])
    given = model(row[None].to(device_of(model)))
    found = next(t for t in tensors_of(given) if t.is_floating_point())
    return found[:, len(front) :].float()


def _require_same(front: Tensor, own: Tensor) -> None:
    """Require that a prefix does what the tokens in front did."""
    error = float((own - front).square().mean() / front.square().mean().clamp_min(1e-30))
    if not error < _SAME:
        raise ConfigError(
            "model must have relative positions to have tokens in front, but gives something else "
            f"than with them in the text itself: a relative squared error of {error:.2g}"
        )


def _warn(text: str) -> None:
    if distributed.is_main():
        warnings.warn(text, stacklevel=3)
