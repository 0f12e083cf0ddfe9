"""What a training run leaves behind besides the model: its result, and a log while it runs."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vq.container.writer import atomic_file
from vq.errors import OutputError
from vq.learning.rules.signs import SignTelemetry

__all__ = ["FinetuneResult", "RunLog", "entry"]

#: What rules tell, by their names.
Told = Mapping[str, Mapping[str, float]]


@dataclass
class FinetuneResult:
    """Record of a run.

    Attributes
    ----------
    losses : list of float
        Mean loss of every epoch.
    signs : list of SignTelemetry
        State of the signs after every epoch; empty if the model has none.
    steps : int
        Optimiser steps.
    reassigned : int
        Changes of an index by assignment refinement.
    rules : dict of str to list of dict
        What every other rule told after every epoch, by its name.
    settings : dict
        Everything the run was asked to do, as plain data.
    """

    losses: list[float] = field(default_factory=list)
    signs: list[SignTelemetry] = field(default_factory=list)
    steps: int = 0
    reassigned: int = 0
    rules: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def add_epoch(self, loss: float, told: Told) -> None:
        """Take note of an epoch's mean loss and of what the rules tell after it."""
        reassigned, signs, others = _sorted(told)
        self.losses.append(loss)
        self.reassigned = reassigned
        if signs is not None:
            self.signs.append(SignTelemetry(**signs))
        for name, numbers in others.items():
            self.rules.setdefault(name, []).append(numbers)

    def to_json(self) -> dict[str, Any]:
        """Plain data for a run record; ``rules`` only if one told anything."""
        data = asdict(self)
        if not self.rules:
            del data["rules"]
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "FinetuneResult":
        """Read back what :meth:`to_json` gave."""
        return cls(**{**data, "signs": [SignTelemetry(**signs) for signs in data["signs"]]})


def entry(event: str, step: int, epoch: int, loss: float, told: Told) -> dict[str, Any]:
    """Make a line of the log; the loss is the mean of the epoch so far."""
    reassigned, signs, others = _sorted(told)
    data = {"event": event, "step": step, "epoch": epoch, "loss": loss}
    data |= {"reassigned": reassigned, "signs": signs}
    return data | ({"rules": others} if others else {})


def _sorted(
    told: Told,
) -> tuple[int, dict[str, float] | None, dict[str, dict[str, float]]]:
    """Changes of indices, state of the signs, and what all other rules told, by name."""
    others = {name: dict(numbers) for name, numbers in told.items()}
    signs = others.pop("signs", None)
    return int(others.pop("refinement", {}).get("reassigned", 0)), signs, others


class RunLog:
    """JSON lines in ``run.jsonl``, one for every checkpoint and every epoch.

    Parameters
    ----------
    folder : path
    step : int
        Where the run continues; lines after that checkpoint tell of work that was lost, and go.
    """

    def __init__(self, folder: str | os.PathLike[str], step: int) -> None:
        self._path = Path(folder) / "run.jsonl"
        kept = []
        if self._path.exists():
            for line in self._path.read_text(encoding="utf-8").splitlines():
                try:
                    entry = json.loads(line)
                    # An epoch's line comes after the checkpoint of the same step.
                    if entry["step"] + (entry["event"] == "epoch") > step:
                        break
                except ValueError:  # cut off when the process died
                    break
                kept.append(line + "\n")
            with atomic_file(self._path) as file:
                file.write("".join(kept).encode())

    def write(self, entry: dict[str, Any]) -> None:
        """Append one line.

        Raises
        ------
        OutputError
            If the disk is full.
        """
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise OutputError(
                f"{self._path}: must be writable, not refused ({error.strerror or error})"
            ) from error
