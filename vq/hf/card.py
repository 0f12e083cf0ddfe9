"""The model card of a folder: what was compressed and how, how large it is, how to load it."""

import importlib.metadata
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from vq.container import LAYOUT, FilePlan, Geometry, account
from vq.errors import ConfigError
from vq.hf.quantizer import FILE

__all__ = ["CARD", "Facts", "check_card", "model_card"]

#: Name of the card in a folder.
CARD = "README.md"
_MARK = "<!-- Written by signbook. Delete this line to keep the file from being overwritten. -->"
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_NO_DATA = "0" * 64

Facts = Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""A ``signbook.eval/1`` document, or rows of a table by the names of their columns."""


def check_card(folder: Path, base_model: str | None, evaluation: Facts | None) -> None:
    """Refuse a card that cannot be written, or would take the place of another text.

    Raises
    ------
    ConfigError
    """
    if base_model is not None and not _HUB_ID.fullmatch(base_model):
        raise ConfigError(
            f"base_model must be the name of a model on the hub, such as owner/name, "
            f"not {base_model!r}"
        )
    if evaluation is not None:
        _table(evaluation)
    try:
        text = (folder / CARD).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return  # there is none; what cannot be written is found when it is
    if _MARK not in text.splitlines():
        raise ConfigError(
            f"{folder / CARD}: must be a card that signbook wrote, not another text; move it away, "
            "or pass card=False to leave it as it is"
        )


def model_card(
    model: Any,
    plan: FilePlan,
    layers: Iterable[Geometry],
    *,
    base_model: str | None,
    license_: str | None,
    evaluation: Facts | None,
) -> str:
    """Text of the card.

    Parameters
    ----------
    model : transformers.PreTrainedModel
    plan : FilePlan
        Of the container.
    layers : iterable of Geometry
        The compressed layers.
    base_model : str, optional
        Name on the hub of what was compressed; by default the one it was loaded by, if it has one.
    license_ : str, optional
    evaluation : Facts, optional
    """
    layers = list(layers)
    base = base_model or _base_of(model)
    about: dict[str, Any] = {"library_name": "transformers"}
    if base is not None:
        about |= {"base_model": base, "base_model_relation": "quantized"}
    if license_ is not None:
        about["license"] = license_
    about["tags"] = ["signbook", *sorted({g.method for g in layers})]
    name = type(model).__name__
    remains = "" if plan.layout == LAYOUT else ", with what its method leaves at run time in place"
    parts = [
        f"---\n{yaml.safe_dump(about, sort_keys=False, allow_unicode=True)}---",
        _MARK,
        f"# {literal(base or name)}, compressed",
        f"A {literal(name)} that Signbook has compressed into one file, `{FILE}`, in the layout "
        f"`{plan.layout}`. Loaded, it is an ordinary dense model{remains}.",
        "## How to load it",
        f"```python\nimport vq.hf\n\n"
        f'model = vq.hf.from_pretrained("FOLDER")  # where this file is; a {name}\n```',
        "`pip install 'signbook[lm]'` installs what it needs. After `vq.hf.register()`, "
        "`from_pretrained` of transformers itself reads the folder, too.",
        "## Size",
        _sizes(layers, plan.file_bytes),
        "Bits count every byte that a layer takes in the file: codes, signs, codebooks, scales and "
        "padding.",
    ]
    if evaluation is not None:
        parts += ["## Evaluation", _table(evaluation)]
    made = plan.provenance
    recipe = json.dumps(json.loads(made.recipe), indent=1, ensure_ascii=True)
    rows = [("recipe", "below"), ("seed", made.seed)]
    if made.calibration != _NO_DATA:
        rows.append(("sha256 of the calibration data", made.calibration))
    rows += [("compressed by", made.tool), ("torch", torch.__version__)]
    rows.append(("transformers", importlib.metadata.version("transformers")))
    parts += ["## How it was made", _rows(("", ""), rows), f"```json\n{recipe}\n```"]
    return "\n\n".join(parts) + "\n"


def literal(text: object) -> str:
    """A text that Markdown shows as it is, on one line, in a table too."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))
    return re.sub(r"([\\`*_\[\]<>|&~:@$!#])", r"\\\1", line)


def _base_of(model: Any) -> str | None:
    """Name on the hub that a model was loaded by, unless it was a folder."""
    name = getattr(model, "name_or_path", None) or ""
    return name if _HUB_ID.fullmatch(name) and not os.path.exists(name) else None


def _sizes(layers: Sequence[Geometry], file_bytes: int) -> str:
    """Layers by format and operation, what is kept, and the file."""
    kinds: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for counted in account(layers):
        kind = counted.geometry.method, counted.geometry.op
        kinds[kind].append((counted.geometry.weights, counted.total_bytes))
    rows: list[Sequence[object]] = []
    for (method, op), counts in kinds.items():
        weights, held = (sum(column) for column in zip(*counts, strict=True))
        rows.append((f"{method}, {op}", len(counts), weights, held, round(8 * held / weights, 3)))
    count, weights, held = (sum(row[i] for row in rows) for i in (1, 2, 3))  # type: ignore[misc]
    if len(rows) > 1:
        rows.append(("all compressed layers", count, weights, held, round(8 * held / weights, 3)))
    rows.append(("kept as they are, and header", "", "", file_bytes - held, ""))
    rows.append(("the file", "", "", file_bytes, ""))
    return _rows(("what", "layers", "weights", "bytes", "bits per weight"), rows)


def _table(evaluation: Facts) -> str:
    """A table of an evaluation.

    Raises
    ------
    ConfigError
        If it is none.
    """
    if isinstance(evaluation, Mapping):
        metrics, reference = evaluation.get("metrics"), evaluation.get("reference") or {}
        if not isinstance(metrics, Mapping) or not isinstance(reference, Mapping):
            raise _no_evaluation(evaluation)
        rows = [
            {"metric": name, "compressed": value}
            | ({"original": reference.get(name, "")} if reference else {})
            for name, value in metrics.items()
        ]
        protocol = evaluation.get("protocol") or {}
        note = ", ".join(f"{literal(key)}: {literal(value)}" for key, value in protocol.items())
        return _table(rows) + (f"\n\nHow the text was cut: {note}." if note else "")
    if isinstance(evaluation, str) or not all(isinstance(row, Mapping) for row in evaluation):
        raise _no_evaluation(evaluation)
    head = list(dict.fromkeys(key for row in evaluation for key in row))
    cells = [[row.get(key, "") for key in head] for row in evaluation]
    if not head or any(not isinstance(c, str | int | float) for row in cells for c in row):
        raise _no_evaluation(evaluation)
    return _rows(head, cells)


def _no_evaluation(given: object) -> ConfigError:
    shown = repr(given)
    return ConfigError(
        "evaluation must be a document of signbook eval, or rows of names and numbers, not "
        f"{shown if len(shown) <= 80 else shown[:77] + '...'}"
    )


def _rows(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *([_cell(value) for value in row] for row in rows)]
    lines[0] = [literal(name) for name in head]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if type(value) is int else literal(value)
