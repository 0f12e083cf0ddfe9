"""The C header and the driver: compiled, held against the tables, and run against the RTL."""

import ctypes
import dataclasses
import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

import rtl
from hwsim.simulator.accelerator import Surroundings
from hwsim.simulator.verilator import MEMORY_FILE, simulate_job
from rtl import AcceleratorConfig
from rtl.control.header import driver_files
from rtl.control.registers import IDENTITY, REGISTERS, register_map
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
    RunStatus,
)
from tests.hwsim.programs import SMALL, VECTOR, Layers, every_format
from vq.container import GRANULE_BYTES
from vq.native import command_of

NAME = "signbook_accelerator"
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror")
#: A host whose bus is whoever calls it, and whose accelerator sees memory from ``offset`` on.
FIRMWARE = """\
#include <stdint.h>
uint32_t (*bus_read)(uint64_t);
void (*bus_write)(uint64_t, uint32_t);
void (*bus_pause)(void);
#define SB_READ(base, offset) bus_read((base) + (offset))
#define SB_WRITE(base, offset, value) bus_write((base) + (offset), (value))
#define SB_PAUSE() bus_pause()
#include "signbook_accelerator.c"

int firmware(uint64_t base, uint8_t *memory, uint64_t program, uint64_t layers, uint64_t offset,
             struct sb_counters *counters);
int firmware(uint64_t base, uint8_t *memory, uint64_t program, uint64_t layers, uint64_t offset,
             struct sb_counters *counters)
{
    int status;
    if (!sb_present(base))
        return -1;
    sb_relocate(memory + offset + program, (uint32_t)layers, offset);
    if (sb_start(base, program + offset, (uint32_t)layers, 1))
        return -2;
    if (!sb_start(base, program + offset, (uint32_t)layers, 1))
        return -3; /* it is busy */
    status = (int)sb_wait(base);
    sb_read_counters(base, counters);
    return status | (int)sb_failed_layer(base) << 8;
}
"""


def write_driver(folder: Path, config: AcceleratorConfig = SMALL) -> None:
    for suffix, text in driver_files(config, NAME).items():
        (folder / f"{NAME}{suffix}").write_text(text)


def compile_c(folder: Path, *options: str) -> None:
    command = [*command_of("CC", "cc"), *STRICT, *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def library_of(folder: Path, source: str) -> Path:
    (folder / "host.c").write_text(source)
    compile_c(folder, "-shared", "-fPIC", "-o", "host.so", "host.c")
    return folder / "host.so"


def test_the_driver_needs_no_library(tmp_path: Path) -> None:
    write_driver(tmp_path)
    compile_c(tmp_path, "-ffreestanding", "-nostdlib", "-shared", "-fPIC", "-Wl,-z,defs",
              "-o", "driver.so", f"{NAME}.c")  # fmt: skip
    driver = ctypes.CDLL(str(tmp_path / "driver.so"))
    driver.sb_meaning.restype = ctypes.c_char_p
    assert driver.sb_meaning(RunStatus.STALLED.value).startswith(b"Nothing moved for TIMEOUT")
    assert driver.sb_meaning(99) == b"Not a status of this version."


def test_default_accesses_are_words_in_memory(tmp_path: Path) -> None:
    """Registers as an array: what the driver writes where, without any macro of the host."""
    write_driver(tmp_path)
    compile_c(tmp_path, "-shared", "-fPIC", "-o", "driver.so", f"{NAME}.c")
    driver = ctypes.CDLL(str(tmp_path / "driver.so"))
    registers = (ctypes.c_uint32 * len(REGISTERS))()
    base = ctypes.c_uint64(ctypes.addressof(registers))
    at = {name: address // 4 for name, address in register_map().items()}
    assert not driver.sb_present(base)
    registers[at["IDENTITY"]] = IDENTITY
    assert driver.sb_present(base)
    assert driver.sb_start(base, ctypes.c_uint64(0x1_2345_6780), 7, 0) == 0
    written = {name: registers[at[name]] for name in at if registers[at[name]]}
    program = {"PROGRAM_LOW": 0x23456780, "PROGRAM_HIGH": 1, "LAYERS": 7}
    assert written == {"IDENTITY": IDENTITY, **program, "CONTROL": 1}
    registers[at["STATUS"]] = 0b1
    assert driver.sb_start(base, ctypes.c_uint64(0), 1, 0) == -1
    registers[at["STATUS"]] = 0b10 | RunStatus.SHAPE.value << 8 | 5 << 16
    assert driver.sb_wait(base) == RunStatus.SHAPE.value and driver.sb_failed_layer(base) == 5


def test_the_documented_host_compiles(tmp_path: Path) -> None:
    write_driver(tmp_path)
    page = (Path(rtl.__file__).parents[1] / "docs" / "accelerator.md").read_text()
    (example,) = re.findall(r"```c\n(.*?)```", page, re.DOTALL)
    declared = "enum sb_status run(uintptr_t, uint8_t *, uint64_t, uint32_t);\n"
    (tmp_path / "host.c").write_text(f'#include "{NAME}.c"\n{declared}{example}')
    compile_c(tmp_path, "-c", "host.c")


@pytest.mark.parametrize(
    ("config", "kind", "layout"),
    [(SMALL, "SB_LAYER", PROGRAM_LAYER), (VECTOR, "SB_VECTOR", VECTOR_LAYER)],
)
def test_fields_are_where_the_hardware_has_them(tmp_path: Path, config, kind, layout) -> None:
    """Every field set by its macros, one by one, is that field of the layout and no other."""
    write_driver(tmp_path, config)
    header = (tmp_path / f"{NAME}.h").read_text()
    names = re.findall(rf"#define ({kind}_\w+)_BIT ", header)
    sets = "\n".join(f"case {i}: SB_SET(to, {name}, value); break;" for i, name in enumerate(names))
    source = f"""#include "{NAME}.c"
    void set(int i, void *to, uint64_t value);
    void set(int i, void *to, uint64_t value) {{ switch (i) {{ {sets} }} }}"""
    library = ctypes.CDLL(str(library_of(tmp_path, source)))
    flat = dict(leaves(layout))
    assert names == [f"{kind}_{path.replace('.', '_').upper()}" for path in flat]
    ones = (1 << 8 * PROGRAM_BYTES) - 1
    for i, (bit, width) in enumerate(flat.values()):
        value = 0x5A5A5A5A5A5A5A5B & ((1 << width) - 1)
        for before in (0, ones):
            layer = ctypes.create_string_buffer(before.to_bytes(PROGRAM_BYTES, "little"))
            library.set(i, layer, ctypes.c_uint64(value))
            mask = ((1 << width) - 1) << bit
            want = before & ~mask | value << bit
            assert int.from_bytes(layer.raw[:PROGRAM_BYTES], "little") == want


def leaves(layout, path="", base=0):
    for name, field in layout:
        if name == "unused":
            continue
        if hasattr(field.shape, "members"):
            yield from leaves(field.shape, f"{path}{name}.", base + field.offset)
        else:
            yield f"{path}{name}", (base + field.offset, field.width)


KINDS = {
    PROGRAM_VERSION: (PROGRAM_LAYER, ADDRESSES),
    VECTOR_VERSION: (VECTOR_LAYER, VECTOR_ADDRESSES),
}


@pytest.mark.parametrize(("layout", "units"), KINDS.values())
def test_all_addresses_are_moved(layout, units) -> None:
    """No other field is an address: these are 58 or 64 bits wide."""
    wide = {name: width for name, (_, width) in leaves(layout) if width in (58, 64)}
    assert sorted(units) == sorted(wide)
    assert all(units[name] == (64 if width == 58 else 1) for name, width in wide.items())


def test_each_kind_of_descriptor_is_moved_by_its_own_addresses(tmp_path: Path) -> None:
    write_driver(tmp_path, VECTOR)
    compile_c(tmp_path, "-shared", "-fPIC", "-o", "driver.so", f"{NAME}.c")
    kinds, offset = [VECTOR_VERSION, PROGRAM_VERSION, VECTOR_VERSION], 4096
    program = ctypes.create_string_buffer(
        b"".join(version.to_bytes(PROGRAM_BYTES, "little") for version in kinds)
    )
    driver = ctypes.CDLL(str(tmp_path / "driver.so"))
    driver.sb_relocate(program, len(kinds), ctypes.c_uint64(offset))
    for number, version in enumerate(kinds):
        layout, units = KINDS[version]
        at = dict(leaves(layout))
        want = version + sum(offset // unit << at[name][0] for name, unit in units.items())
        found = program.raw[PROGRAM_BYTES * number : PROGRAM_BYTES * (number + 1)]
        assert int.from_bytes(found, "little") == want


@pytest.mark.parametrize(("config", "layout"), [(SMALL, RECORD), (VECTOR, VECTOR_RECORD)])
def test_records_are_structures_of_words(config, layout) -> None:
    header = driver_files(config, NAME)[".h"]
    body = re.search(r"struct sb_record \{(.*?)\};", header, re.DOTALL)
    assert body is not None
    members = re.findall(r"uint32_t (\w+)", body[1])
    assert members == [name for name, _ in layout]
    assert [layout[name].offset for name in members] == list(range(0, 32 * len(members), 32))
    assert f"SB_RECORD_BYTES {GRANULE_BYTES}u" in header
    assert "#define SB_CONFIG_ROWS 8\n" in header and "codebook_rom" not in header


@pytest.mark.rtl
def test_the_driver_runs_the_hardware(tmp_path: Path) -> None:
    """Layers behind a page that is not theirs: outputs, counters and records are Python's."""
    write_driver(tmp_path)
    layers = Layers(tmp_path, every_format()[1:5], rows=2)
    (want,) = layers.run()
    offset, base = 4096, 0x4000_0000
    program = layers.program
    counters = [r.name for r in REGISTERS if not r.writable][2:]
    job = {
        "bus_bits": SMALL.bus_bits,
        **dataclasses.asdict(Surroundings()),
        "library": str(library_of(tmp_path, FIRMWARE)),
        "base": base,
        "program": [program.address, len(program.layers), offset],
        "counters": len(counters),
    }
    testbench = "tests.hwsim.simulator.driver_testbench"
    image = bytes(offset) + layers.image()
    with simulate_job(SMALL, testbench, json.dumps(job), None, memory=image) as done:
        facts = json.loads((done.folder / "result.json").read_text())
        after = bytearray((done.folder / MEMORY_FILE).read_bytes())[offset:]
    assert facts["status"] == RunStatus.OK.value
    for work in layers.work:
        found = program.places[work.step.target].read(after)
        assert np.array_equal(found, work.outputs), work.step.name
    found = dict(zip(counters, facts["counters"], strict=True))
    assert found == {name: want.registers[name] for name in counters}
    records = slice(program.records, program.records + GRANULE_BYTES * len(program.layers))
    assert after[records] == want.image[records]
    written = [(address - base, value) for kind, address, value, _ in facts["accesses"]
               if kind == "write"]  # fmt: skip
    at = register_map()
    assert written == [
        (at["PROGRAM_LOW"], program.address + offset),
        (at["PROGRAM_HIGH"], 0),
        (at["LAYERS"], len(program.layers)),
        (at["CONTROL"], 0b11),
    ]
    assert all(response == 0 for *_, response in facts["accesses"])
