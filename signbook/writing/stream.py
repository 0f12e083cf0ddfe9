"""Text of tokens as they come: whole characters only, and each once."""

from collections.abc import Callable, Sequence

__all__ = ["Stream"]

#: Tokens of the prompt that the first ones are decoded with: a text may begin in another way.
_BEFORE = 4
#: What an unfinished character decodes to.
_UNFINISHED = "\ufffd"


class Stream:
    """Decodes tokens behind a prompt, a few at a time.

    Parameters
    ----------
    decode : callable
        From tokens to their text.
    prompt : sequence of int
    show : callable
        Is given every new piece of text.

    Attributes
    ----------
    text : str
        All that was shown.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        prompt: Sequence[int],
        show: Callable[[str], None],
    ) -> None:
        self.text = ""
        self._decode, self._show = decode, show
        self._tokens = list(prompt)
        self._start, self._shown = max(0, len(prompt) - _BEFORE), len(prompt)

    def add(self, token: int) -> None:
        """Show what a token completes."""
        self._tokens.append(token)
        self._advance(whole=True)

    def end(self) -> None:
        """Show what remains, an unfinished character too."""
        self._advance(whole=False)

    def _advance(self, *, whole: bool) -> None:
        before = self._decode(self._tokens[self._start : self._shown])
        now = self._decode(self._tokens[self._start :])
        piece = now[len(before) :]
        if not piece or (whole and now.endswith(_UNFINISHED)):
            return
        self._start, self._shown = self._shown, len(self._tokens)
        self.text += piece
        self._show(piece)
