"""The register map and the layouts in memory as a page, from the tables that make the hardware."""

from collections.abc import Iterator
from typing import Any

from amaranth import Shape
from amaranth.lib import data

from rtl.control.registers import register_map, registers_of
from rtl.program import (
    PROGRAM_BYTES,
    PROGRAM_LAYER,
    PROGRAM_VERSION,
    VECTOR_LAYER,
    VECTOR_RECORD,
    VECTOR_VERSION,
    RunStatus,
)
from rtl.transfer.parameters import GROUPS_PER_SLOT, PARAMETER_BYTES

__all__ = ["STATUS_MEANINGS", "fields", "register_document"]

_INTRODUCTION = f"""\
# Registers and layouts in memory

Made from the tables that the hardware is made from, by `signbook rtl`.

A host writes the file and the program into memory, the program's address and its number of
descriptors into registers, and 1 into bit 0 of CONTROL. It waits for the interrupt or polls STATUS.
Registers are 32 bits wide, by AXI4-Lite in whole words; other accesses get a slave error.
A program is a list of descriptors of {PROGRAM_BYTES} bytes: layers of the array, version
{PROGRAM_VERSION}, and operations of the vector unit, version {VECTOR_VERSION}. An instance
without such a unit refuses these, and its registers end with WRITE_BURSTS.
"""

#: What each status says.
STATUS_MEANINGS: dict[Any, str] = {
    RunStatus.OK: "All layers are done.",
    RunStatus.READ_ERROR: "A read was answered with an error; this layer's outputs are wrong.",
    RunStatus.METHOD: "Not a method of this instance.",
    RunStatus.SUB_VECTOR: "d is outside the range of this instance.",
    RunStatus.INDEX_BITS: "b is 0 or too large, or codes are not of 2, 3 or 4 bits.",
    RunStatus.LENGTH: "Lengths of the stream are 0 or contradict each other.",
    RunStatus.ADDRESS: "An address is not a multiple of 64, or a region ends behind the last one.",
    RunStatus.CODEBOOK: "Codebook mode or size, a kept one that is not there, or one to load "
    "beside a ROM.",
    RunStatus.VERSION: "Not a descriptor of this version.",
    RunStatus.SHAPE: "A count is 0, or counts of window, tile, stream, groups, outputs disagree.",
    RunStatus.BUFFER: "More positions or words than there is room for.",
    RunStatus.WRITE_ERROR: "A write was answered with an error.",
    RunStatus.STALLED: "Nothing moved for TIMEOUT cycles. Only a reset helps.",
}

_PARAMETERS = f"""\
## Parameters

For each block of `rows` outputs, in the order of the stream: a slot with the numbers of the
requantisation, then, for a layer with groups, one for every {GROUPS_PER_SLOT} groups of inputs.
A slot has {PARAMETER_BYTES} bytes for each output of the block. They are the bias (int32), the
multiplier (int16), the shift (uint8) and one unused byte; or the scales of {GROUPS_PER_SLOT}
successive groups (int16 each).
"""


def register_document() -> str:
    """Markdown text with all registers, status codes, and fields of descriptors and records."""
    addresses = register_map(vector=True)
    registers = [
        (
            f"0x{addresses[r.name]:02x}",
            f"`{r.name}`",
            "read, write" if r.writable else "read",
            f"0x{r.reset:x}",
            r.meaning,
        )
        for r in registers_of(vector=True)
    ]
    codes = [(str(s.value), f"`{s.name}`", meaning) for s, meaning in STATUS_MEANINGS.items()]
    return "\n".join(
        (
            _INTRODUCTION,
            "## Registers\n",
            _table(("address", "name", "access", "reset", "meaning"), registers),
            "## Status codes\n",
            _table(("code", "name", "meaning"), codes),
            "## Descriptor\n",
            "Bits of a little-endian number. `rtl/program.py` and the layouts that it names say "
            "what each field means.\n",
            _table(("bits", "field"), _rows(PROGRAM_LAYER)),
            "## Descriptor of an operation of the vector unit\n",
            "`rtl/vector/job.py` and the layouts that it names say what each field means.\n",
            _table(("bits", "field"), _rows(VECTOR_LAYER)),
            _PARAMETERS,
            "## Record\n",
            "Written behind each layer's outputs, one granule of 64 bytes.\n",
            _table(("bits", "field"), _rows(VECTOR_RECORD)),
        )
    )


def fields(
    layout: data.Layout, prefix: str = "", base: int = 0
) -> Iterator[tuple[str, int, Shape]]:
    """Fields of a layout and of those inside it: path with dots, first bit, shape."""
    for name, field in layout:
        offset, path = base + field.offset, f"{prefix}{name}"
        if isinstance(field.shape, data.StructLayout):
            yield from fields(field.shape, f"{path}.", offset)
        else:
            yield path, offset, Shape.cast(field.shape)


def _rows(layout: data.Layout) -> Iterator[tuple[str, str]]:
    for path, offset, shape in fields(layout):
        bits = f"{offset + shape.width - 1}:{offset}" if shape.width > 1 else str(offset)
        yield bits, f"`{path}`" + (" (signed)" if shape.signed else "")


def _table(head: tuple[str, ...], rows: object) -> str:
    lines = [head, tuple("---" for _ in head), *rows]  # type: ignore[misc]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
