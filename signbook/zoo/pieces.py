"""Byte pairs, learned from a text in a second: characters, and unions of the most common pairs."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from vq.errors import ConfigError

__all__ = ["Pieces"]

_CHARACTERS = ["\n", *map(chr, range(32, 127))]


class Pieces:
    """A vocabulary: the characters, then unions of two pieces, each the most common at its time.

    A piece holds no space but at its start, and no line end but as that alone; a union of a piece
    with itself is none.

    Parameters
    ----------
    text : str
        What the unions are learned from; printable ASCII and line ends.
    size : int
        Pieces at most: a short text has no more pairs.

    Raises
    ------
    ConfigError
        If there is another character.
    """

    def __init__(self, text: str, size: int) -> None:
        self.pieces = list(_CHARACTERS)
        self._unions: list[tuple[int, int]] = []
        tokens = _characters(text)
        closed = np.zeros(size, bool)  # pieces that nothing is put before
        closed[:2] = True
        while len(self.pieces) < size:
            left, right = tokens[:-1], tokens[1:]
            free = ~closed[right] & (left != right) & (left != 0)
            if not free.any():
                break
            pair = divmod(int(np.bincount((left * size + right)[free]).argmax()), size)
            closed[len(self.pieces)] = closed[pair[0]]
            tokens = _united(tokens, pair, len(self.pieces))
            self.pieces.append(self.pieces[pair[0]] + self.pieces[pair[1]])
            self._unions.append(pair)

    def __len__(self) -> int:
        return len(self.pieces)

    def encode(self, text: str) -> NDArray[np.int64]:
        """Turn ``text`` into tokens, by the unions in the order in which they were learned.

        Raises
        ------
        ConfigError
            If there is another character than printable ASCII and line ends.
        """
        tokens = _characters(text)
        for number, pair in enumerate(self._unions, len(_CHARACTERS)):
            tokens = _united(tokens, pair, number)
        return tokens

    def decode(self, tokens: Iterable[int]) -> str:
        """Turn tokens into text."""
        return "".join(self.pieces[token] for token in tokens)


def _characters(text: str) -> NDArray[np.int64]:
    found = {character: token for token, character in enumerate(_CHARACTERS)}
    if strange := sorted(set(text) - set(found)):
        raise ConfigError(
            f"text must hold printable ASCII and line ends, not {strange[0]!r}; leave it out"
        )
    return np.array([found[character] for character in text], np.int64)


def _united(tokens: NDArray[np.int64], pair: tuple[int, int], union: int) -> NDArray[np.int64]:
    """Put ``union`` in the place of every ``pair``, whose pieces differ, so that none overlap."""
    at = np.flatnonzero((tokens[:-1] == pair[0]) & (tokens[1:] == pair[1]))
    united = tokens.copy()
    united[at] = union
    return np.delete(united, at + 1)
