"""Memory models by their text form."""

import difflib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from hwsim.memory.datasheet import device_names, load_device
from hwsim.memory.device import Device
from hwsim.memory.dram import Dram
from hwsim.memory.ideal import IdealMemory
from hwsim.memory.ini import read_ini
from vq.errors import ConfigError, bulleted

__all__ = ["absolute_memory", "parse_memory"]


@dataclass(frozen=True)
class _Option:
    """A setting of a memory: the argument it becomes, and how its text is read."""

    argument: str
    pattern: re.Pattern[str]
    read: Callable[[str], Any]
    requirement: str


_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?")
_INTEGER = re.compile(r"[0-9]{1,12}")
_IDEAL = {
    "bytes_per_cycle": _Option("bytes_per_cycle", _NUMBER, Fraction, "a number above 0"),
    "latency": _Option("latency_cycles", _INTEGER, int, "a whole number of cycles, at least 1"),
}
_DRAM = {
    "mapping": _Option("mapping", re.compile(r"[a-z]+"), str, "fields such as rorabacobgch"),
    "clock_mhz": _Option("clock_mhz", _NUMBER, Fraction, "a number above 0"),
    "controller_latency_ns": _Option(
        "controller_latency_ns", _NUMBER, Fraction, "a number of nanoseconds"
    ),
    "channels": _Option("channels", _INTEGER, int, "a power of two"),
}
_FILE = re.compile(r"(?P<path>.*\.ini)(:(?P<settings>.*))?", re.S)


def parse_memory(spec: str) -> IdealMemory | Dram:
    """Build a memory model from its text form.

    ``NAME`` or ``NAME:KEY=VALUE,...``, where NAME is ``ideal``, a device (``ddr4-2400``), or the
    path of a file in DRAMsim3's syntax that ends in ``.ini``. ``dram:NAME,KEY=VALUE,...`` and
    ``dram:ini=PATH,KEY=VALUE,...`` mean the same. Settings of ``ideal`` are ``bytes_per_cycle`` and
    ``latency``, those of all others ``mapping``, ``clock_mhz`` (of the accelerator),
    ``controller_latency_ns`` and ``channels``. Those that are left out keep their defaults.

    Raises
    ------
    ConfigError
        If the name or a setting is unknown, a value is impossible, or a file is not one.
    """
    name, settings = _split(spec)
    if name == "ideal":
        return IdealMemory(**_read(spec, settings, _IDEAL))
    arguments = _read(spec, settings, _DRAM)
    device = read_ini(name) if name.endswith(".ini") else load_device(name)
    channels = arguments.pop("channels", None)
    if channels is not None:
        device = _with_channels(device, channels)
    return Dram(device, **arguments)


def absolute_memory(spec: str) -> str:
    """The same memory for a process in another folder: a path in the text becomes absolute."""
    name, settings = _split(spec)
    if not name.endswith(".ini"):
        return spec
    return ":".join(filter(None, (os.path.abspath(name), settings)))


def _split(spec: str) -> tuple[str, str]:
    """Name, or path of a file, and settings."""
    kind, _, rest = spec.partition(":")
    if kind == "dram":
        name, _, settings = rest.partition(",")
        name = name.removeprefix("ini=")
        if rest.startswith("ini=") and not name.endswith(".ini"):
            raise ConfigError(
                f"memory {spec!r}: ini must be a file that ends in .ini, not {name!r}"
            )
        names = device_names()
    else:
        file = _FILE.fullmatch(spec)
        name, settings = (file["path"], file["settings"] or "") if file else (kind, rest)
        names = ["ideal", *device_names()]
    if name not in names and not name.endswith(".ini"):
        near = difflib.get_close_matches(name, names, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        known = ", ".join(names)
        raise ConfigError(f"memory must be one of {known}, or a file.ini, not {name!r}{hint}")
    return name, settings


def _read(spec: str, settings: str, options: Mapping[str, _Option]) -> dict[str, Any]:
    """Arguments from settings."""
    problems: list[str] = []
    arguments: dict[str, Any] = {}
    for setting in filter(None, settings.split(",")):
        key, _, text = setting.partition("=")
        option = options.get(key)
        if option is None:
            near = difflib.get_close_matches(key, options, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            problems.append(f"setting must be one of {', '.join(options)}, not {key!r}{hint}")
        elif option.argument in arguments:
            problems.append(f"{key} must be given once")
        elif not option.pattern.fullmatch(text):
            problems.append(f"{key} must be {option.requirement}, not {text!r}")
        else:
            arguments[option.argument] = option.read(text)
    if problems:
        raise ConfigError(bulleted(f"memory {spec!r}", problems))
    return arguments


def _with_channels(device: Device, channels: int) -> Device:
    if channels < 1 or channels & (channels - 1) or channels > 64:
        raise ConfigError(f"memory channels must be a power of two up to 64, not {channels}")
    return replace(device, structure=replace(device.structure, channels=channels))
