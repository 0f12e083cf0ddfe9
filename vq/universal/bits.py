"""What a codebook costs that many networks share: three ways to charge it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from vq.container import Geometry, account
from vq.errors import ConfigError

__all__ = ["NetworkBits", "UniversalBits", "universal_bits"]

#: Stands for a book that no file holds, so that none is charged for it.
_UNCHARGED = "rom:" + 64 * "0"


class NetworkBits(NamedTuple):
    """Bits per weight of one network, over the weights of its compressed layers.

    Attributes
    ----------
    weights : int
    indices : float
        Indices, signs and scales, and the codes of layers in other formats.
    shared : float
        The same, and the book spread over all weights of all networks.
    alone : float
        The same, and the whole book.
    padding : float
        What the container's alignment adds to each of these.
    """

    weights: int
    indices: float
    shared: float
    alone: float
    padding: float


class UniversalBits(NamedTuple):
    """Bits per weight of networks that share one book.

    Attributes
    ----------
    book_bytes : int
    networks : tuple of NetworkBits
    indices, shared, padding : float
        As :class:`NetworkBits` has them, over the weights of all networks.
    """

    book_bytes: int
    networks: tuple[NetworkBits, ...]
    indices: float
    shared: float
    padding: float


def universal_bits(networks: Sequence[Sequence[Geometry]]) -> UniversalBits:
    """Account for networks whose codebook layers all use one fixed book.

    Parameters
    ----------
    networks : sequence of sequence of Geometry
        Compressed layers of every network. What a model keeps as it is counts nowhere.

    Raises
    ------
    ConfigError
        If there is a network without layers, no book, or more than one.
    """
    books = {(g.codebook, g.k, g.d) for layers in networks for g in layers if g.codebook}
    if not networks or not all(networks) or len(books) != 1:
        raise ConfigError(
            "networks must have layers each, and all of these one book, not "
            f"{len(books)} in {len(networks)} of {', '.join(str(len(n)) for n in networks)} layers"
        )
    ((_, k, d),) = books
    book_bytes = k * d
    counted = [_without_book(layers) for layers in networks]
    weights, own, padding = (sum(column) for column in zip(*counted, strict=True))
    return UniversalBits(
        book_bytes,
        tuple(
            NetworkBits(
                mine,
                8 * stored / mine,
                8 * stored / mine + 8 * book_bytes / weights,
                8 * (stored + book_bytes) / mine,
                8 * filled / mine,
            )
            for mine, stored, filled in counted
        ),
        8 * own / weights,
        8 * (own + book_bytes) / weights,
        8 * padding / weights,
    )


def _without_book(layers: Sequence[Geometry]) -> tuple[int, int, int]:
    """Weights of a network, bytes of its streams and scales, and bytes of padding."""
    accounts = account([replace(g, codebook=_UNCHARGED) if g.codebook else g for g in layers])
    return (
        sum(g.weights for g in layers),
        sum(a.stream_bytes + a.scale_bytes for a in accounts),
        sum(a.padding_bytes for a in accounts),
    )
