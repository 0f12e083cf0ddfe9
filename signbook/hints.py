"""Hints for names that do not exist."""

import difflib
from collections.abc import Iterable

__all__ = ["did_you_mean"]


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Suggest the nearest of ``known``, if need be by what follows the last colon; or nothing.

    >>> did_you_mean("resnet2", ["py:signbook.zoo.resnet:resnet20", "py:signbook.zoo.ddpm:ddpm"])
    " (did you mean 'py:signbook.zoo.resnet:resnet20'?)"
    """
    choices = list(known)
    plain = given.partition("?")[0]
    found = difflib.get_close_matches(plain, choices, n=1, cutoff=0.8)
    if not found:
        ends = {choice.rpartition(":")[2].lower(): choice for choice in choices}
        last = plain.rpartition(":")[2].lower()
        found = [ends[e] for e in difflib.get_close_matches(last, list(ends), n=1, cutoff=0.6)]
    return f" (did you mean {found[0]!r}?)" if found else ""
