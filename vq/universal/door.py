"""Make one fixed codebook from several networks, for all of them (VQ4ALL, arXiv 2412.06875).

The paper draws equally many sub-vectors from every network and samples the codewords from a kernel
density of them. Units, bandwidth and rounding are ours: they are not published.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from vq.container.constants import CODE_MAX
from vq.errors import ConfigError, bulleted
from vq.formats.book import Book
from vq.formats.codebook import SSVQ, VQ
from vq.formats.format import Format
from vq.recipe.recipe import Recipe
from vq.universal.bits import UniversalBits, universal_bits
from vq.universal.density import WAYS, codewords, scott
from vq.universal.pool import Drawn, draw, source_of, told

__all__ = ["UniversalCodebook", "universal_codebook"]

Network = nn.Module | Sequence[Tensor]

_SAMPLES_MAX = 1_000_000
_BANDWIDTH_MAX = 100.0


@dataclass(frozen=True, eq=False)
class UniversalCodebook:
    """A codebook for many networks.

    Attributes
    ----------
    integers : [k, d] int8
        What a file of the codebook holds.
    method : "ssvq" or "vq"
        Whether codewords are magnitudes or signed.
    bandwidth : float or None
        Of the density, in root mean squares; None where there was none.
    drawn : tuple of Drawn
        One for each network.
    """

    integers: NDArray[np.int8]
    method: str
    bandwidth: float | None
    drawn: tuple[Drawn, ...]

    @property
    def book(self) -> Book:
        """What ``vq.SSVQ(codebook=...)`` and ``vq.VQ(codebook=...)`` take."""
        return Book.of(self.integers)

    def bits(self) -> UniversalBits:
        """What the layers that were drawn from cost with this book."""
        book = self.book.tensor
        return universal_bits(
            [[replace(g, codebook=book) for g in each.geometries] for each in self.drawn]
        )


def universal_codebook(
    networks: Mapping[str, Network] | Iterable[tuple[str, Network]],
    rules: SSVQ | VQ | Recipe | Sequence[Recipe],
    *,
    by: str = "kde",
    samples: int = 3000,
    bandwidth: float | None = None,
    seed: int = 0,
) -> UniversalCodebook:
    """Make one fixed codebook from equally many sub-vectors of every network.

    Sub-vectors are in units of the root mean square of their layer, or of their output where each
    has its own scale: a layer that takes a fixed codebook fits its scales to it. Each layer of a
    network gives as many as its share of the network's sub-vectors; ragged ones are left out.
    Codewords are all different. No network is changed, and of pairs one is held at a time.

    Parameters
    ----------
    networks : mapping of name to network, or pairs
        A module, or weights ``[O, C, *taps]`` (2 dimensions: linear, 3 and 4: convolutions).
    rules : SSVQ, VQ, Recipe or sequence of Recipe
        A format draws from all linears and convolutions that it fits; a recipe, or one for each
        network, from the layers that it makes ssvq or vq. Codebooks that these name already do not
        matter, nor does what they share.
    by : "kde", "kmeans" or "subsample"
        Sample codewords from the density of all sub-vectors, cluster these, or take some of them.
    samples : int
        Sub-vectors from each network; drawn with replacement where it has fewer.
    bandwidth : float, optional
        Of the density, in root mean squares; Scott's by default.
    seed : int

    Raises
    ------
    ConfigError
        If a setting cannot be, networks disagree on the method, d or k, a network has no layer that
        fits, there are fewer sub-vectors or different codewords than k, or as :func:`vq.plan`.
    WeightError
        If a weight holds NaN or infinity.
    """
    _check(rules, by, samples, bandwidth)
    pairs = networks.items() if isinstance(networks, Mapping) else networks
    stream = np.random.default_rng(seed)
    kind: SSVQ | VQ | None = None
    parts: list[NDArray[np.float32]] = []
    drawn: list[Drawn] = []
    for name, network in pairs:
        source = source_of(name, network, _rules_of(rules, len(drawn)))
        if kind is None:
            kind = source.kind
            _check_room(kind)
        elif not source.kind.agrees_with(kind):
            raise ConfigError(
                f"network {name!r}: must have the method, d and k of network {drawn[0].name!r}, "
                f"{told(kind)}, for one codebook, not {told(source.kind)}"
            )
        points, counts = draw(source, samples, stream.spawn(1)[0])
        parts.append(points)
        drawn.append(counts)
    if kind is None:
        raise ConfigError("networks must be at least one, not none")
    if isinstance(rules, Sequence) and len(rules) != len(drawn):
        raise _uneven(rules, str(len(drawn)))
    pool = np.concatenate(parts)
    if kind.k > len(pool):
        raise ConfigError(
            f"k must be at most the {len(pool):,} sub-vectors that are drawn, not {kind.k:,}; draw "
            "more samples"
        )
    if by == "kde" and bandwidth is None:
        bandwidth = scott(pool)
    integers = codewords(
        pool, kind.k, by, bandwidth=bandwidth or 0, magnitudes=bool(kind.sign_bits), seed=seed
    )
    return UniversalCodebook(integers, kind.name, bandwidth, tuple(drawn))


def _check(
    rules: SSVQ | VQ | Recipe | Sequence[Recipe], by: str, samples: int, bandwidth: float | None
) -> None:
    problems = rules.problems() if isinstance(rules, Format) else []
    if by not in WAYS:
        problems.append(f"by must be {', '.join(WAYS[:-1])} or {WAYS[-1]}, not {by!r}")
    if not 1 <= samples <= _SAMPLES_MAX:
        problems.append(f"samples must be 1 to {_SAMPLES_MAX:,}, not {samples:,}")
    if bandwidth is not None and by != "kde":
        problems.append(f"bandwidth must be absent by {by!r}: it is that of a density ('kde')")
    elif bandwidth is not None and not 0 < bandwidth <= _BANDWIDTH_MAX:
        problems.append(
            f"bandwidth must be above 0 and at most {_BANDWIDTH_MAX:g} root mean squares, not "
            f"{bandwidth}; without any noise it is by 'subsample'"
        )
    if problems:
        raise ConfigError(bulleted("codebook", problems))


def _check_room(kind: SSVQ | VQ) -> None:
    """Refuse more codewords than there are of d integers."""
    room = (CODE_MAX - kind.low + 1) ** kind.d
    if kind.k > room:
        raise ConfigError(
            f"k must be at most {room}, the codewords of d = {kind.d} integers from {kind.low} to "
            f"{CODE_MAX}, not {kind.k}; choose a larger d"
        )


def _rules_of(rules: SSVQ | VQ | Recipe | Sequence[Recipe], place: int) -> SSVQ | VQ | Recipe:
    if not isinstance(rules, Sequence):
        return rules
    if place >= len(rules):
        raise _uneven(rules, f"{place + 1} or more")
    return rules[place]


def _uneven(recipes: Sequence[Recipe], networks: str) -> ConfigError:
    return ConfigError(
        f"recipes must be one for all networks, or one for each, not {len(recipes)} for {networks}"
    )
