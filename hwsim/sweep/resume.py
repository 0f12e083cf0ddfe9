"""Whether a folder holds the same sweep."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vq.container import bulleted
from vq.errors import ResumeError

__all__ = ["earlier_of", "require_same"]


def earlier_of(path: Path) -> dict[str, Any] | None:
    """The document of the sweep that a folder holds, or None.

    Raises
    ------
    ResumeError
        If the file is something else.
    """
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no JSON"
        raise ResumeError(
            f"{path}: must be the document of a sweep, but {reason}; choose another --out"
        ) from None
    if not isinstance(document, dict) or document.get("schema") != "signbook.sweep/1":
        raise ResumeError(
            f"{path}: must be the document of a sweep (signbook.sweep/1), which it is not; "
            "choose another --out"
        )
    return document


def require_same(path: Path, earlier: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with a sweep whose rows would not be those of this one.

    A search may go on with more trials: its first ones are the same.

    Raises
    ------
    ResumeError
        With everything that differs.
    """
    before, after = _facts(earlier), _facts(now)
    problems = [
        f"{name} must be {json.dumps(before.get(name))}, as before, "
        f"not {json.dumps(after.get(name))}"
        for name in before.keys() | after.keys()
        if before.get(name) != after.get(name)
    ]
    if problems:
        raise ResumeError(
            bulleted(f"{path}: resumed sweep", sorted(problems)) + "\nchoose another --out"
        )


def _facts(document: Mapping[str, Any]) -> dict[str, Any]:
    """What rows depend on, by name."""
    search = document.get("search")
    facts: dict[str, Any] = {"search": bool(search)}
    if search:
        facts |= {"seed": search.get("seed"), "objectives": document.get("objectives")}
    for name in ("space", "versions", "files"):
        facts |= {f"{name}: {key}": v for key, v in (document.get(name) or {}).items()}
    return facts
