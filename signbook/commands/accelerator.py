"""Settings of an accelerator from a file and from a command line."""

import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vq.errors import ConfigError

__all__ = ["read_settings"]

#: What ``array`` is short for: whichever of them the command line has, takes the file's place.
_SIDES = {"rows", "columns"}


def read_settings(
    file: Path | None, given: Sequence[str] | None, rom: Path | None
) -> tuple[dict[str, Any], str | None]:
    """Join the settings of a YAML file and those of a command line, which win.

    Parameters
    ----------
    file : path, optional
        A mapping of settings, as :meth:`rtl.AcceleratorConfig.from_mapping` takes them.
    given : sequence of str, optional
        Texts ``KEY=VALUE``.
    rom : path, optional
        Array file of a codebook in ROM.

    Returns
    -------
    settings : dict
        For ``from_mapping``.
    clock_mhz : str or None
        Of the accelerator, for :func:`hwsim.memory.clock.memory_at`: no setting of the hardware.

    Raises
    ------
    ConfigError
        If the file cannot be read or holds something else, a text is not ``KEY=VALUE``, or the
        codebook is given twice or is none.
    """
    values: dict[str, Any] = {}
    for setting in given or []:
        key, equals, value = (part.strip() for part in setting.partition("="))
        if not equals:
            raise ConfigError(f"--set must be KEY=VALUE, not {setting!r}")
        if values.setdefault(key, value) != value:
            raise ConfigError(f"--set {key} must be given once, not as {values[key]} and {value}")
    if rom is not None:
        if "codebook_rom" in values:
            raise ConfigError("--rom must stand without --set codebook_rom: it is the same setting")
        from rtl import read_rom, rom_text

        values["codebook_rom"] = rom_text(read_rom(rom))
    if file is not None:
        stored = _read(file)
        if "array" in values:
            stored = {key: value for key, value in stored.items() if key not in _SIDES}
        elif _SIDES & values.keys() and "array" in stored:
            from rtl.settings import sides_of

            stored |= sides_of(stored.pop("array"))
        values = stored | values
    clock = values.pop("clock_mhz", None)
    return values, None if clock is None else str(clock)


def _read(file: Path) -> dict[str, Any]:
    from vq.text.document import parse_yaml
    from vq.text.files import read_text

    subject = f"accelerator {file}"
    document = parse_yaml(read_text(file, subject), subject)
    if not isinstance(document, dict):
        given = reprlib.repr(document)
        raise ConfigError(f"{subject}: must map settings to values, not be {given}")
    return document
