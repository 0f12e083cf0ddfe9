"""The devices that come with Signbook: one data file each, every value beside its source."""

import dataclasses
import tomllib
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

from hwsim.memory.device import Device, Rail, Structure, Timing

__all__ = ["device_names", "load_device"]

_FOLDER = Path(__file__).parent / "data"


def device_names() -> list[str]:
    """Names of all devices, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


@cache
def load_device(name: str) -> Device:
    """Read a device from its file.

    Parameters
    ----------
    name : str
        One of :func:`device_names`.
    """
    text = tomllib.loads((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    return Device(
        name=name,
        structure=_fill(Structure, text["structure"]),
        timing=_fill(Timing, text["timing"]),
        rails=tuple(_fill(Rail, rail) for rail in text["rails"]),
        mapping=text["mapping"],
    )


def _fill(kind: type[Any], entries: dict[str, list[Any]]) -> Any:
    """A record of which each field is given as value and source; fractions where it wants them."""
    exact = {field.name for field in dataclasses.fields(kind) if field.type is Fraction}
    return kind(
        **{
            name: Fraction(str(value)) if name in exact else value
            for name, (value, _) in entries.items()
        }
    )
