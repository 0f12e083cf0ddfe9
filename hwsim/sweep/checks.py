"""What names and numbers must be, as problems for one error."""

import difflib
from collections.abc import Collection

__all__ = ["count_problem", "name_problem"]


def name_problem(subject: str, given: object, known: Collection[str]) -> list[str]:
    """What is wrong with a name that must be one of ``known``: nothing, or one problem."""
    if given in known:
        return []
    near = difflib.get_close_matches(str(given), known, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return [f"{subject} must be one of {', '.join(known)}, not {given!r}{hint}"]


def count_problem(subject: str, given: object, least: int) -> list[str]:
    """What is wrong with a number that must be a whole one from ``least`` on."""
    if type(given) is int and given >= least:
        return []
    return [f"{subject} must be a whole number from {least}, not {given!r}"]
