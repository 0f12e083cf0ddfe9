"""The door: weights that share their inputs and a codebook, to codewords, signs and scales."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rescomp.checks import (
    check_book,
    check_method,
    check_needs,
    check_statistics,
    check_values,
)
from rescomp.codebooks.problem import Problem
from rescomp.codebooks.settings import Fitting
from rescomp.methods import Method
from rescomp.problem import more_damping
from rescomp.quantize import Report
from rescomp.settings import Settings
from vq.calibration.statistics import Statistics
from vq.container import Geometry
from vq.container.order import split
from vq.errors import ConfigError, UnsupportedLayerError, WeightError
from vq.formats.codebook_weights import CodebookWeight, PlainVQ, SignSplit, Start
from vq.layers import join_grid, matrix_of

__all__ = ["Coded", "quantize_codebook"]

#: Greatest weight: its square, times a token's energy and summed over a layer, is a float32.
_LARGEST = 2.0**40


@dataclass(frozen=True, eq=False)
class Coded:
    """A weight in codewords; ``weight`` is what every reader of the stored layer decodes.

    Attributes
    ----------
    geometry : Geometry
    codebook : [k, d] float32
        In units, as it is trained; layers that share it hold the same tensor.
    indices : [Go * Gi] int32
        In grid order.
    latent : [O, I] float32
        Compensated weights, in units; with SSVQ, their signs are those that were chosen.
    unit : [1] or [O] float32
    report : Report
    """

    geometry: Geometry
    codebook: Tensor
    indices: Tensor
    latent: Tensor
    unit: Tensor
    report: Report

    @property
    def weight(self) -> Tensor:
        """Decoded weight, [O, I] float32."""
        g, compressed = self.geometry, self.compressed(self.latent)
        trained = self.trained()
        return matrix_of(compressed(*(trained[role] for role in compressed.roles)), g.op, g.axis)

    def compressed(self, like: Tensor) -> CodebookWeight:
        """The weight as it is trained, for a module whose weight is ``like``."""
        kind = SignSplit if self.geometry.sign_bits else PlainVQ
        indices, unit = self.indices.cpu().numpy(), self.unit.clone()  # scales may learn in place
        start = Start(self.codebook.cpu().numpy(), indices, unit)
        return kind(self.geometry, like, start)

    def trained(self) -> dict[str, Tensor]:
        """What is trained, by role: the codebook, and latent signs [N, d] in units."""
        g, found = self.geometry, {"codebook": self.codebook.clone()}
        if g.sign_bits:
            grid = split(self.latent.cpu().numpy(), g.d, g.axis)
            found["signs"] = torch.from_numpy(grid.reshape(-1, g.d).copy()).to(self.latent.device)
        return found

    def retrained(self, weight: CodebookWeight, originals: Sequence[Tensor]) -> "Coded":
        """What training has made of :meth:`compressed`."""
        g, latent = self.geometry, weight.tensor("signs", originals)
        book = weight.tensor("codebook", originals)
        assert book is not None
        if latent is not None:
            signed = weight.in_effect(latent.detach())
            latent = join_grid(signed.reshape(*g.grid, g.d), (g.O, g.I), g.axis)
        return replace(
            self,
            codebook=book.detach(),
            indices=weight.indices,
            latent=self.latent if latent is None else latent.contiguous(),
            unit=weight.unit,
        )


@torch.no_grad()
def quantize_codebook(
    weights: Sequence[Tensor],
    geometries: Sequence[Geometry],
    method: Method,
    statistics: Statistics,
    settings: Settings | None = None,
    fitting: Fitting | None = None,
    *,
    book: Tensor | None = None,
    importance: Sequence[Tensor] | None = None,
    seed: int = 0,
) -> list[Coded]:
    """Choose one codebook for weights with the same inputs, and their codes.

    Parameters
    ----------
    weights : sequence of [O, I]
        Left as they are.
    geometries : sequence of Geometry
        The layers to make, from ``vq.SSVQ(...).geometry(...)``; of one d, k and codebook.
    method : Method
        One of :mod:`rescomp.methods` but RTN, in mode "allw".
    statistics : Statistics
    settings : Settings, optional
    fitting : Fitting, optional
    book : [k, d], optional
        Codebook in units, which stays as it is: that of layers with other inputs, too.
    importance : sequence of [O], optional
        How much an error of every output of every weight matters; all alike if not given. What
        outputs without any choose matters 2^-20 of the mean.
    seed : int
        Of the clustering.

    Raises
    ------
    UnsupportedLayerError
        If a layer is no codebook layer of sub-vectors along its inputs.
    WeightError
        If a weight is not finite, or greater than 2**40.
    ConfigError
        If a shape does not fit, there are too few sub-vectors, ``book`` is not finite or none for
        the layers, or the statistics are missing, empty, not finite or not those of a positive
        semi-definite Hessian.
    """
    settings, fitting = settings or Settings(), fitting or Fitting()
    check_method(method)
    first = geometries[0]
    for weight, g in zip(weights, geometries, strict=True):
        _check(weight, g, first)
        check_statistics(statistics, g)
    if book is not None:
        check_book(book, first)
    count = sum(g.N for g in geometries)
    if book is None and first.k > count:
        raise ConfigError(
            f"layer {first.name!r}: k must be at most its {count} sub-vectors, not {first.k}"
        )
    correction = method.correction()
    if correction is None or correction.mode != "allw":
        raise ConfigError(
            f"layer {first.name!r}: method must compensate, in mode 'allw', for codebooks, not "
            f"{method!r}"
        )
    check_needs(statistics, correction, method, first)
    rows = None if importance is None else torch.cat(list(importance)).to(weights[0].device)
    problem = Problem.of(
        weights, first, correction, statistics, settings, fitting, book, seed, rows
    )
    found, damping = more_damping(problem.solve, settings.damping, first.name)
    dead = int((statistics.hessian.diagonal() == 0).sum())
    book, at, out = found.book.float(), 0, []
    for weight, g in zip(weights, geometries, strict=True):
        own = slice(at, at + g.O)
        at += g.O
        unit = found.unit[own].float()
        coded = Coded(
            g,
            book,
            found.indices[:, own].T.int().reshape(-1),
            (found.latent[: g.I, own].T.float() / unit[:, None]).contiguous(),
            unit if g.scales > 1 else unit[:1],
            Report(damping, dead, statistics.tokens),
        )
        out.append(_measured(coded, weight, statistics) if settings.measure else coded)
    return out


def _measured(coded: Coded, weight: Tensor, statistics: Statistics) -> Coded:
    decoded = coded.weight
    errors = statistics.error(weight, decoded), statistics.asymmetric_error(weight, decoded)
    report = replace(coded.report, error=errors[0], asymmetric_error=errors[1])
    return replace(coded, report=report)


def _check(weight: Tensor, g: Geometry, first: Geometry) -> None:
    if not g.k or g.axis != "in" or not g.scales:
        kind = g.method if not g.k else f"{g.method} with axis {g.axis!r}, {g.scales} scales"
        raise UnsupportedLayerError(
            f"layer {g.name!r}: format must be ssvq or vq along the inputs, with scales of its "
            f"own, not {kind}"
        )
    if (g.method, g.d, g.k, g.sign_bits) != (first.method, first.d, first.k, first.sign_bits):
        raise ConfigError(
            f"layer {g.name!r}: codebook must be that of {first.name!r}, {first.method} of d "
            f"{first.d} and k {first.k}, not {g.method} of d {g.d} and k {g.k}"
        )
    check_values(weight, g)
    largest = float(weight.abs().max())
    if largest > _LARGEST:
        raise WeightError(
            f"layer {g.name!r}: weight must be at most {_LARGEST:g} in magnitude, not {largest:g}"
        )
