"""The tokenizer of the stories models: byte-pair merges by score, single bytes as a fallback."""

import heapq
import re
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

from vq.errors import ConfigError

__all__ = ["Tokenizer", "check_pieces", "load_tokenizer"]

BOS = 1
_FIRST_BYTE = 3
_BYTE_PIECE = re.compile(rb"<0x([0-9A-F]{2})>")


class Tokenizer:
    """Text to tokens and back.

    Parameters
    ----------
    pieces : sequence of bytes
        Text of every token. Tokens 0 to 2 are unknown, beginning and end of a text; tokens 3 to
        258 are the single bytes.
    scores : sequence of float
        The adjacent pair whose union has the greatest score is merged first.
    """

    bos = BOS

    def __init__(self, pieces: Sequence[bytes], scores: Sequence[float]) -> None:
        self.pieces = tuple(pieces)
        self.scores = tuple(scores)
        self._ids = {piece: i for i, piece in reversed(list(enumerate(pieces)))}

    def __len__(self) -> int:
        return len(self.pieces)

    def encode(self, text: str, *, bos: bool = True) -> list[int]:
        """Turn ``text`` into tokens, in O(n log n) for n characters.

        A space is put before the text, as in training; ``bos`` puts token 1 before all.
        """
        ids = [i for character in " " + text for i in self._single(character)] if text else []
        merged = self._merge(ids)
        return [BOS, *merged] if bos else merged

    def decode(self, tokens: Iterable[int]) -> str:
        """Turn tokens into text; the space that :meth:`encode` adds is taken away again."""
        raw = b"".join(self._bytes(i) for i in tokens if i > 2)
        return raw.decode("utf-8", errors="replace").removeprefix(" ")

    def _single(self, character: str) -> list[int]:
        raw = character.encode()
        found = self._ids.get(raw)
        return [byte + _FIRST_BYTE for byte in raw] if found is None else [found]

    def _bytes(self, token: int) -> bytes:
        piece = self.pieces[token]
        found = _BYTE_PIECE.fullmatch(piece)
        return bytes([int(found[1], 16)]) if found else piece

    def _merge(self, ids: list[int]) -> list[int]:
        """Merge best pairs first, the leftmost of equals, until no pair is a token.

        The symbols form a linked list by position; outdated heap entries are skipped.
        """
        following = [*range(1, len(ids)), -1] if ids else []
        preceding = list(range(-1, len(ids) - 1))
        symbols: list[int | None] = list(ids)
        heap: list[tuple[float, int, int, int, int]] = []

        def propose(left: int) -> None:
            right = following[left] if left >= 0 else -1
            if right < 0:
                return
            a, b = symbols[left], symbols[right]
            assert a is not None and b is not None
            union = self._ids.get(self.pieces[a] + self.pieces[b])
            if union is not None:
                heapq.heappush(heap, (-self.scores[union], left, union, a, b))

        for position in range(len(ids)):
            propose(position)
        while heap:
            _, left, union, a, b = heapq.heappop(heap)
            right = following[left]
            if symbols[left] != a or right < 0 or symbols[right] != b:
                continue
            symbols[left], symbols[right] = union, None
            following[left] = following[right]
            if following[left] >= 0:
                preceding[following[left]] = left
            propose(preceding[left])
            propose(left)
        return [symbol for symbol in symbols if symbol is not None]


def load_tokenizer(path: str | Path, vocabulary: int = 512) -> Tokenizer:
    """Read a llama2.c tokenizer: an int32, then float32 score, int32 length and bytes per token.

    Raises
    ------
    ConfigError
        If the file does not hold exactly ``vocabulary`` tokens, the single bytes among them.
    """
    file = Path(path)
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file}: must be a readable file, but {error.strerror}") from error
    pieces, scores, position = [], [], 4
    try:
        (longest,) = struct.unpack_from("<i", raw)
        for _ in range(vocabulary):
            score, length = struct.unpack_from("<fi", raw, position)
            position += 8 + length
            if not 0 <= length <= longest or position > len(raw):
                raise struct.error
            pieces.append(raw[position - length : position])
            scores.append(score)
    except struct.error as error:
        raise ConfigError(
            f"{file}: must hold {vocabulary} tokens, but token {len(pieces)} is cut or too long"
        ) from error
    if position != len(raw):
        raise ConfigError(f"{file}: must hold {vocabulary} tokens, not more")
    if problem := check_pieces(pieces):
        raise ConfigError(f"{file}: {problem}")
    return Tokenizer(pieces, scores)


def check_pieces(pieces: Sequence[bytes]) -> str | None:
    """What keeps pieces from being those of a :class:`Tokenizer`, if anything does."""
    single = [b"<0x%02X>" % value for value in range(256)]
    if list(pieces[_FIRST_BYTE : _FIRST_BYTE + 256]) != single:
        return "tokens 3 to 258 must be the single bytes"
    return None
