"""What a recipe would do to a model, known before any work is done."""

import math
import warnings
from dataclasses import dataclass

from torch import nn

from vq.clustering.cluster import KMeans
from vq.container import LayerAccount, Provenance, account, plan_file
from vq.container.constants import TOKENIZER
from vq.container.header import canonical_json
from vq.formats.kept import dtype_tag, require_kept, require_names, tied_tensors
from vq.formats.remaining import require_plain
from vq.recipe.footprint import peak_bytes, resident_bytes, unread_bytes
from vq.recipe.plain import check_values
from vq.recipe.recipe import Recipe
from vq.recipe.selection import Selection, select
from vq.version import TOOL

__all__ = ["KEEP_PADDING", "Plan", "Skipped", "check_storable", "plan"]


#: What to do for an embedding whose padding would not stay zero.
KEEP_PADDING = "give it scale 'output', store it in int8 or int4, or keep it by the recipe"

# What every format has in common: checks, decoding, and writing the file.
_SECONDS_PER_WEIGHT, _SECONDS_PER_LAYER = 4e-8, 1e-3


@dataclass(frozen=True)
class Skipped:
    """A layer that stays as it is, and why.

    Attributes
    ----------
    name : str
    reason : str
    kind : str
        Type of the module.
    weights : int
        Parameters of its own.
    candidate : bool
        Whether a recipe could name it: it holds a weight matrix.
    """

    name: str
    reason: str
    kind: str
    weights: int
    candidate: bool


@dataclass(frozen=True)
class Plan:
    """Prediction of :func:`plan`.

    Attributes
    ----------
    layers : list of LayerAccount
        Bytes of every layer to compress, in model order; exact.
    skipped : list of Skipped
        Layers with parameters of their own that are stored as they are.
    file_bytes : int
        Exact size of the file that :func:`vq.save` would write.
    kept_bytes : int
        Bytes of the tensors that are stored as they are.
    seconds : float
        Estimated time of ``vq.compress_`` and ``vq.save`` on this machine, without calibration, to
        about a factor of two.
    memory_bytes : int
        Estimated peak of memory beside the model while clustering, to about a factor of two.
    process_peak_bytes : int
        Estimated peak of this process's memory, everything counted, if it compressed the model and
        saved it; to about a factor of two.
    """

    layers: list[LayerAccount]
    skipped: list[Skipped]
    file_bytes: int
    kept_bytes: int
    seconds: float
    memory_bytes: int
    process_peak_bytes: int

    @property
    def bits_per_weight(self) -> float:
        """Bits per weight over the compressed layers: codebooks, scales and padding counted."""
        weights = sum(a.geometry.weights for a in self.layers)
        return 8 * sum(a.total_bytes for a in self.layers) / weights if weights else math.nan


def plan(model: nn.Module, recipe: Recipe, *, seed: int = 0, tokenizer_bytes: int = 0) -> Plan:
    """Predict what ``vq.compress_`` and ``vq.save`` would do, from shapes alone.

    The model is not changed and no weight is read but the padding of embeddings, so it may be on
    the meta device. Time is extrapolated from a moment of clustering random data.

    Parameters
    ----------
    model : module
    recipe : Recipe
    seed : int
    tokenizer_bytes : int
        Of the tokenizer that the file will carry (``signbook compress --tokenizer``); 0 for none.

    Raises
    ------
    RecipeError, UnsupportedLayerError, ConfigError
        As :func:`vq.compress_` would.
    """
    require_plain(model, "vq.plan")
    selection = select(model, recipe)
    _warn_of_padding(selection)
    geometries = [layer.geometry for layer in selection.layers]
    kept = _kept(model, selection)
    if tokenizer_bytes:
        kept[TOKENIZER] = ("U8", (tokenizer_bytes,))
    provenance = Provenance(TOOL, canonical_json(recipe.to_json()), seed)
    file = plan_file(geometries, kept, provenance)
    groups = [
        (group[0].format, [layer.geometry for layer in group])
        for group in selection.codebook_groups()
    ]
    memory = max((kind.memory_bytes(parts) for kind, parts in groups), default=0)
    # Until the last layer is in place, the model holds the original of every weight, too. While
    # the file is written, the originals are gone, and its bytes are in memory.
    held = sum(kind.held_bytes(parts) for kind, parts in groups)
    replaced = sum(layer.weight.nbytes for layer in selection.layers)
    present = resident_bytes() + unread_bytes(model)
    peak = present + held + max(memory, file.file_bytes - replaced)
    clusterer = KMeans(seed)
    seconds = sum(kind.seconds(parts, clusterer) for kind, parts in groups)
    seconds += _SECONDS_PER_WEIGHT * sum(g.weights for g in geometries)
    return Plan(
        layers=account(geometries),
        skipped=_skipped(model, selection),
        file_bytes=file.file_bytes,
        kept_bytes=sum(tensor.nbytes for tensor in file.tensors if tensor.name in kept),
        seconds=seconds + _SECONDS_PER_LAYER * len(geometries),
        memory_bytes=memory,
        process_peak_bytes=max(peak_bytes(), peak),
    )


def _warn_of_padding(selection: Selection) -> None:
    """Say where the padding of an embedding is zero and can hardly stay so."""
    for layer in selection.layers:
        if not layer.format.takes_codes and not layer.per_output:
            for row in layer.padding():
                warnings.warn(
                    f"layer {layer.name!r}: row {row}, its padding, is zero and hardly stays so, "
                    f"as codewords are seldom zero; {KEEP_PADDING}",
                    stacklevel=3,
                )


def check_storable(model: nn.Module, selection: Selection) -> None:
    """Refuse, before any work, a model that no file could hold once it is compressed.

    Raises
    ------
    ConfigError
        If a tensor has no values, one to keep cannot be stored, or a name means something else in
        a file.
    ContainerError
        If names of tensors collide.
    """
    check_values(model)
    plan_file([layer.geometry for layer in selection.layers], _kept(model, selection), Provenance())


def _kept(model: nn.Module, selection: Selection) -> dict[str, tuple[str, tuple[int, ...]]]:
    compressed = {id(module.weight) for layer in selection.layers for module in layer.modules}
    state = model.state_dict(keep_vars=True)
    require_names(state)
    tensors = {
        names[0]: tensor for names, tensor in tied_tensors(state) if id(tensor) not in compressed
    }
    require_kept(tensors)
    return {name: (dtype_tag(tensor), tuple(tensor.shape)) for name, tensor in tensors.items()}


def _skipped(model: nn.Module, selection: Selection) -> list[Skipped]:
    selected = {id(module) for layer in selection.layers for module in layer.modules}
    out = []
    for name, module in model.named_modules():
        own = list(module.parameters(recurse=False))
        if id(module) in selected or not own:
            continue
        kept = name in selection.kept
        kind = type(module).__name__
        reason = "kept by the recipe" if kept else f"{kind} holds no weight matrix"
        out.append(Skipped(name or kind, reason, kind, sum(p.numel() for p in own), kept))
    return out
