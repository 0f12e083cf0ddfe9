"""Registers and layouts as a C header, and a bare-metal driver, from the same tables."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from amaranth.lib import data

from rtl.accelerator_config import AcceleratorConfig
from rtl.control.document import STATUS_MEANINGS, fields
from rtl.control.registers import IDENTITY, register_map, registers_of
from rtl.descriptor import CodebookMode, Method
from rtl.program import (
    ADDRESSES,
    PROGRAM_BYTES,
    PROGRAM_LAYER,
    PROGRAM_VERSION,
    RECORD,
    VECTOR_ADDRESSES,
    VECTOR_LAYER,
    VECTOR_RECORD,
    VECTOR_VERSION,
)

__all__ = ["driver_files"]

_SOURCE = Path(__file__).with_name("source")
_MADE = "Made by `signbook rtl` from the tables that the hardware is made from; do not edit."


def driver_files(config: AcceleratorConfig, name: str) -> dict[str, str]:
    """Texts of the header and of the driver of an instance, by their suffixes.

    Parameters
    ----------
    config : AcceleratorConfig
        Its settings are constants of the header.
    name : str
        Of the files, without suffix: the driver includes the header.

    Returns
    -------
    dict
        ``.h``: C99 with registers, status codes, places of the fields of descriptors and records,
        and the driver's declarations. ``.c``: the driver, which needs nothing but the header and
        is the same for every instance.
    """
    guard = "".join(sign if sign.isalnum() else "_" for sign in name).upper()
    header = "\n".join(
        (
            f"/* Registers, layouts in memory and driver of an accelerator.\n * {_MADE}\n */",
            f"#ifndef {guard}_H\n#define {guard}_H\n",
            "#include <stdint.h>\n",
            *_tables(config),
            (_SOURCE / "driver.h").read_text(),
            "#endif\n",
        )
    )
    driver = (
        f"/* Bare-metal driver of an accelerator.\n * {_MADE}\n */\n"
        f'#include "{name}.h"\n{(_SOURCE / "driver.c").read_text()}'
    )
    return {".h": header, ".c": driver}


def _tables(config: AcceleratorConfig) -> Iterable[str]:
    vector = bool(config.vector_unit)
    yield "/* Settings of this instance. */"
    for key, value in config.to_mapping().items():
        if isinstance(value, int):
            yield f"#define SB_CONFIG_{key.upper()} {value}"
    yield f"#define SB_CONFIG_HAS_CODEBOOK_ROM {int(bool(config.codebook_rom))}"

    yield "\n/* Registers: bytes from the base, each of 32 bits. */"
    for name, address in register_map(vector).items():
        yield f"#define SB_REG_{name} 0x{address:02x}u"
    yield f"#define SB_IDENTITY 0x{IDENTITY:08x}u"

    counters = [
        r.name
        for r in registers_of(vector)
        if not r.writable and r.name not in ("IDENTITY", "STATUS")
    ]
    yield "\n/* Registers about the last run: X(register, member). */"
    yield _list("SB_COUNTERS", ((name, name.lower()) for name in counters))
    yield _struct("sb_counters", (name.lower() for name in counters))

    yield "\n/* How a run ended: X(name, code, meaning). */"
    yield _list("SB_STATUSES", ((s.name, s.value, f'"{m}"') for s, m in STATUS_MEANINGS.items()))
    yield _enum("sb_status", "SB_RUN", STATUS_MEANINGS)

    yield "\n/* Values of the fields weights.method and weights.codebook_mode. */"
    yield _enum("sb_method", "SB_METHOD", Method)
    yield _enum("sb_codebook_mode", "SB_CODEBOOK", CodebookMode)

    yield "\n/* A descriptor: bits of a little-endian number. */"
    yield f"#define SB_LAYER_BYTES {PROGRAM_BYTES}u"
    yield f"#define SB_PROGRAM_VERSION {PROGRAM_VERSION}u"
    yield from _places("SB_LAYER", PROGRAM_LAYER)

    yield "\n/* Fields of a descriptor that hold addresses: X(field, bytes of its unit). */"
    yield _addresses("SB_LAYER", ADDRESSES)
    if vector:
        yield "\n/* An operation of the vector unit. */"
        yield f"#define SB_VECTOR_VERSION {VECTOR_VERSION}u"
        yield from _places("SB_VECTOR", VECTOR_LAYER)
        yield _addresses("SB_VECTOR", VECTOR_ADDRESSES)

    yield "\n/* A record, as a little-endian host reads it. */"
    record = VECTOR_RECORD if vector else RECORD
    yield from _places("SB_RECORD", record)
    yield f"#define SB_RECORD_BYTES {record.as_shape().width // 8}u"
    yield _struct("sb_record", _words(record))


def _addresses(prefix: str, units: Mapping[str, int]) -> str:
    items = ((f"{prefix}_{_upper(path)}", f"{unit}u") for path, unit in units.items())
    return _list(f"{prefix}_ADDRESSES", items)


def _places(prefix: str, layout: data.Layout) -> Iterable[str]:
    for path, bit, shape in fields(layout):
        if path != "unused":
            name = f"{prefix}_{_upper(path)}"
            signed = " /* signed */" if shape.signed else ""
            yield f"#define {name}_BIT {bit}u\n#define {name}_BITS {shape.width}u{signed}"


def _words(layout: data.Layout) -> Iterable[str]:
    """Members of a structure whose fields are whole words."""
    for path, _, shape in fields(layout):
        words = shape.width // 32
        yield path if words == 1 else f"{path}[{words}]"


def _list(name: str, items: Iterable[tuple[Any, ...]]) -> str:
    """A macro that calls another one for each item."""
    calls = (f"    X({', '.join(map(str, item))})" for item in items)
    return " \\\n".join((f"#define {name}(X)", *calls))


def _enum(name: str, prefix: str, members: Iterable[Any]) -> str:
    lines = (f"    {prefix}_{member.name} = {member.value}," for member in members)
    return "\n".join((f"enum {name} {{", *lines, "};"))


def _struct(name: str, members: Iterable[str]) -> str:
    return "\n".join((f"struct {name} {{", *(f"    uint32_t {m};" for m in members), "};"))


def _upper(path: str) -> str:
    return path.replace(".", "_").upper()
