"""Selected layers of codebook formats: which are refused, which are solved together, and how."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from rescomp.codebooks.quantize import Coded, quantize_codebook
from rescomp.codebooks.settings import Fitting
from rescomp.methods import GPTQ, Method
from rescomp.quantize import Report
from rescomp.settings import Settings
from vq.calibration.gathering import is_looked_up
from vq.calibration.inputs import parts_of
from vq.calibration.statistics import Statistics
from vq.clustering.cluster import KMeans
from vq.errors import ConfigError, bulleted
from vq.formats.format import Format, Original
from vq.formats.starts import cluster
from vq.layers import matrix_of, op_of, shape_of, weight_of
from vq.recipe.selection import Selected

__all__ = [
    "CodebookSolver",
    "can_hold",
    "importance_of",
    "is_coded",
    "problems_of",
    "solved_together",
]


def is_coded(layer: Selected) -> bool:
    """Whether a layer is stored in codewords."""
    return layer.geometry.k > 0


def can_hold(kind: Format, module: nn.Module) -> bool:
    """Whether a format can hold a module's weight compensated: any can but codebooks."""
    op, weight = op_of(module), module.weight
    assert op is not None and isinstance(weight, Tensor)
    g = kind.geometry("layer", op, shape_of(weight, op))
    return not g.k or (g.axis == "in" and parts_of(module) == 1)


def problems_of(layer: Selected, method: Method) -> list[str]:
    """Everything that keeps a layer in codewords from being compensated."""
    correction, found = method.correction(), []
    if correction is None:
        found.append(f"method must compensate, not {method.name}; use vq.compress_")
    elif correction.mode != "allw":
        found.append(f"mode must be 'allw' for codebooks, not {correction.mode!r}")
    if is_looked_up(layer):
        found.append("rows must be mixed by inputs, not looked up; keep it, or give it int8")
    elif layer.geometry.axis != "in" or parts_of(layer.modules[0]) > 1:
        found.append("sub-vectors must lie along inputs that all outputs see; give it int8")
    if not layer.geometry.scales:
        found.append("scale must be 'layer' or 'output', not 'norm'")
    own = f"{layer.name}.codebook"
    if layer.format.shared is None and layer.geometry.codebook != own:
        found.append("codebook must be its own or shared, not a fixed one; use vq.compress_")
    return found


def importance_of(layers: Sequence[Selected], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Importance [O] of the outputs of all layers in codewords that it is given for.

    Raises
    ------
    ConfigError
        If it does not fit its layer.
    """
    found = {x.name: given[x.name] for x in layers if is_coded(x) and x.name in given}
    problems = []
    for layer in layers:
        if (values := found.get(layer.name)) is None:
            continue
        if values.shape != (layer.geometry.O,):
            problems.append(
                f"layer {layer.name!r}: importance must have shape ({layer.geometry.O},), one for "
                f"every output, not {tuple(values.shape)}"
            )
        elif not bool((torch.isfinite(values) & (values >= 0)).all()):
            problems.append(f"layer {layer.name!r}: importance must be finite and non-negative")
    if problems:
        raise ConfigError(bulleted("importance", problems))
    return found


def solved_together(layers: Sequence[Selected]) -> list[list[Selected]]:
    """Layers in codewords by their codebook, and every other one by itself."""
    found: dict[str, list[Selected]] = {}
    for layer in layers:
        name = layer.geometry.codebook if is_coded(layer) else None
        found.setdefault(name or f"layer {layer.name}", []).append(layer)
    return list(found.values())


class CodebookSolver:
    """Solves layers in codewords, and clusters those that no token reaches.

    A codebook whose layers do not all have the same inputs is clustered once, from all of their
    weights, before the first of them is solved, and stays.

    Parameters
    ----------
    layers : sequence of Selected
        All of the model.
    importance : mapping of layer name to [O]
        Of :func:`importance_of`.
    """

    def __init__(
        self,
        layers: Sequence[Selected],
        settings: Settings,
        fitting: Fitting,
        importance: Mapping[str, Tensor],
        seed: int,
    ) -> None:
        self._settings, self._fitting, self._seed = settings, fitting, seed
        self._importance = importance
        self._sharing: dict[str, list[Selected]] = {}
        self._books: dict[str, Tensor] = {}
        for layer in filter(is_coded, layers):
            self._sharing.setdefault(str(layer.geometry.codebook), []).append(layer)

    def prepare(self, layers: Sequence[Selected]) -> None:
        """Cluster the codebook of ``layers``, which share it, if others with other inputs do."""
        name = str(layers[0].geometry.codebook)
        sharing = self._sharing[name]
        if len(layers) == len(sharing) or name in self._books:
            return
        g = sharing[0].geometry
        rows = self._weighed(sharing)
        costs = [None] * len(sharing) if rows is None else list(map(_spread, rows, sharing))
        originals = [
            Original(x.geometry, x.weight, cost, x.per_output)
            for x, cost in zip(sharing, costs, strict=True)
        ]
        starts = cluster(originals, g.k, KMeans(self._seed_of(name)), magnitudes=bool(g.sign_bits))
        self._books[name] = torch.from_numpy(starts[0].codebook)

    def remember(self, one: Coded) -> None:
        """Know a codebook that an earlier run has made."""
        self._books[str(one.geometry.codebook)] = one.codebook

    def solve(
        self,
        layers: Sequence[Selected],
        originals: Mapping[str, Tensor],
        method: Method,
        statistics: list[Statistics] | None,
    ) -> dict[str, Coded]:
        """Choose the codes of layers that share a codebook and their inputs.

        Without statistics, as where no token reaches them, every group chooses by itself.
        """
        geometries = [layer.geometry for layer in layers]
        name = str(geometries[0].codebook)
        weights = [matrix_of(originals[g.name], g.op, g.axis).float() for g in geometries]
        unseen = statistics is None
        if statistics is None:  # inputs that are all alike leave nothing to compensate
            alike = torch.eye(geometries[0].I, device=weights[0].device)
            statistics = [Statistics(alike, None, geometries[0].I)]
        found = quantize_codebook(
            weights,
            geometries,
            GPTQ() if unseen else method,
            statistics[0],
            self._settings,
            self._fitting,
            book=self._books.get(name),
            importance=self._weighed(layers),
            seed=self._seed_of(name),
        )
        if unseen:
            found = [replace(one, report=Report(0.0, 0, 0)) for one in found]
        return {one.geometry.name: one for one in found}

    def _weighed(self, layers: Sequence[Selected]) -> list[Tensor] | None:
        """Importance of the outputs of layers with one codebook; the mean where none is given."""
        found = [self._importance.get(layer.name) for layer in layers]
        given = [values.double().cpu() for values in found if values is not None]
        if not given:
            return None
        mean = torch.cat(given).mean()
        return [
            mean.expand(layer.geometry.O) if values is None else values.double().cpu()
            for layer, values in zip(layers, found, strict=True)
        ]

    def _seed_of(self, codebook: str) -> int:
        return zlib.crc32(f"{self._seed}/{codebook}".encode())


def _spread(rows: Tensor, layer: Selected) -> Tensor:
    """Importance [O] of outputs as that of every weight, shaped like the weight."""
    g = layer.geometry
    return weight_of(rows[:, None].expand(g.O, g.I), g.shape, g.op, g.axis)
