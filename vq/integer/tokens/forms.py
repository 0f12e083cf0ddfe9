"""How every value of a transformer is held: int8 where the array reads it, int16 elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vq.errors import ConfigError
from vq.integer.tokens.arithmetic import BYTE, STREAM
from vq.integer.tokens.values import Draft

__all__ = ["Plan", "planned"]

#: What stands between an int16 value and a linear that reads it in another form.
_BEFORE_ARRAY = {BYTE: "narrow", "rows": "to_rows", "int16": ""}
_PASSES_ON = ("slice", "select", "place", "places")


@dataclass(frozen=True)
class Plan:
    """Drafts with nodes between that change a form, and the form of each.

    Attributes
    ----------
    drafts : list of Draft
    form : dict of Draft to str
    shares : str
        Of attention: "rows" or "int16".
    """

    drafts: list[Draft]
    form: dict[Draft, str]
    shares: str


def planned(
    drafts: Sequence[Draft],
    operands: str | Mapping[str, str],
    shares: str = "rows",
    *,
    stream: bool = False,
) -> Plan:
    """Decide forms.

    Parameters
    ----------
    drafts : sequence of Draft
        In execution order; the inputs of some are changed.
    operands : str or mapping of name to str
        What linears read: one form for all values, or those of some by the names of the drafts
        that give them, others being int8.
    stream : bool
        Whether sums that norms and sums alone read are int32.

    Raises
    ------
    ConfigError
        If a form or a name is unknown.
    """
    wanted = dict(operands) if isinstance(operands, Mapping) else {}
    general = "int8" if isinstance(operands, Mapping) else operands
    for given in (general, *wanted.values()):
        if given not in _BEFORE_ARRAY:
            known = ", ".join(_BEFORE_ARRAY)
            raise ConfigError(f"operands must be one of {known}, not {given!r}")
    if shares not in ("rows", "int16"):
        raise ConfigError(f"shares must be rows or int16, not {shares!r}")
    if unknown := sorted(wanted.keys() - {draft.name for draft in drafts}):
        raise ConfigError(f"operands must be values of the model, not {', '.join(unknown)}")
    form: dict[Draft, str] = {}
    found: list[Draft] = []
    readers = _readers(drafts)
    for draft in drafts:
        own = form[draft] = _form(draft, readers, form, wanted.get(draft.name, general))
        if stream and draft.op == "add" and _in_stream(draft, readers):
            own = form[draft] = STREAM
        found.append(draft)
        if own != "int16" or draft.op in ("tokens", "angles"):
            continue
        for kind in ("narrow", "to_rows"):
            users = [
                u for u in readers[draft] if _through(u, kind, wanted.get(draft.name, general))
            ]
            if users:
                extra = Draft(f"{draft.name}.{kind}", kind, [(draft, 1.0)], draft.shape,
                              draft.rows, draft.growing)  # fmt: skip
                form[extra] = "int8" if kind == "narrow" else "rows"
                found.append(extra)
                for user, at in users:
                    user.inputs[at] = extra, user.inputs[at][1]
    return Plan(found, form, shares)


def _readers(drafts: Sequence[Draft]) -> dict[Draft, list[tuple[Draft, int]]]:
    found: dict[Draft, list[tuple[Draft, int]]] = {draft: [] for draft in drafts}
    for draft in drafts:
        for at, (source, _) in enumerate(draft.inputs):
            found[source].append((draft, at))
    return found


def _ends(
    draft: Draft, readers: Mapping[Draft, Sequence[tuple[Draft, int]]]
) -> list[tuple[Draft, int]]:
    """Who reads a value, or what others give that only move it."""
    found = []
    for user, at in readers[draft]:
        found += _ends(user, readers) if user.op in _PASSES_ON else [(user, at)]
    return found


def _in_stream(draft: Draft, readers: Mapping[Draft, Sequence[tuple[Draft, int]]]) -> bool:
    """Whether norms and sums alone read it."""
    users = [user.op for user, _ in _ends(draft, readers)]
    return bool(users) and {*users} <= {"add", "rms_norm", "layer_norm"}


def _form(
    draft: Draft,
    readers: Mapping[Draft, Sequence[tuple[Draft, int]]],
    form: Mapping[Draft, str],
    wanted: str,
) -> str:
    if draft.op in _PASSES_ON:
        return form[draft.inputs[0][0]]
    if draft.op in ("input", "conv") or len(draft.shape) == 3:
        return "int8"
    users = [user for user, _ in _ends(draft, readers)]
    by_array = bool(users) and all(user.op in ("linear", "conv", "attention") for user in users)
    linear = any(user.op == "linear" for user in users)
    return BYTE if by_array and (wanted == BYTE or not linear) else "int16"


def _through(user: tuple[Draft, int], kind: str, wanted: str) -> bool:
    """Whether a reader of an int16 value reads it through a node of this kind."""
    draft, at = user
    if draft.op == "linear":
        return kind == _BEFORE_ARRAY[wanted]
    if draft.op == "attention":
        return kind == "narrow" and (at > 0 or wanted != "int16")
    return draft.op == "conv" and kind == "narrow"
