"""Formats by name. A format is a file of its own and a line here."""

import importlib

from vq.formats.format import Format

__all__ = ["FORMATS", "format_named"]

#: Module and class of every format, by the name that recipes use. Modules are imported when a
#: format is first asked for: only those of the formats in use need what they import. Whoever
#: brings a format from outside this package adds a line at run time.
FORMATS = {
    "ssvq": "vq.formats.codebook:SSVQ",
    "vq": "vq.formats.codebook:VQ",
    "int8": "vq.formats.scalar:Int8",
    "int4": "vq.formats.scalar:Int4",
    "int3": "vq.formats.scalar:Int3",
    "int2": "vq.formats.scalar:Int2",
}


def format_named(name: str) -> type[Format]:
    """Class of a format.

    Raises
    ------
    KeyError
        If no format has that name.

    Examples
    --------
    >>> format_named("int4")(group=32)
    Int4(group=32, zeros=False, tile_outputs=16)
    """
    module, _, kind = FORMATS[name].partition(":")
    found: type[Format] = getattr(importlib.import_module(module), kind)
    return found
