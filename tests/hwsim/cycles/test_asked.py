"""Memories that are asked burst by burst, as DRAM models are."""

import time
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from hwsim.cycles import Ways, predict
from hwsim.memory import Dram, IdealMemory, device_names, load_device, parse_memory
from hwsim.program import assemble, steps_of_layers
from rtl import AcceleratorConfig
from tests.hwsim.containers import Maker, write
from tests.hwsim.cycles.random_programs import random_memory, random_program
from tests.hwsim.programs import SMALL
from vq.container import open_container


class Late:
    """An ideal memory that says nothing before the cycle before, and takes nothing too late."""

    def __init__(self, ideal: IdealMemory) -> None:
        self._ideal = ideal
        self._now = 0
        self._tickets: list[int] = []
        self.asked = 0

    def request(self, cycle: int, address: int, beats: int, beat_bytes: int) -> None:
        assert cycle >= self._now
        self._now = cycle
        self._ideal.request(cycle, address, beats, beat_bytes)

    def advance(self, cycle: int) -> None:
        self._now = max(self._now, cycle)

    def ready_cycle(self) -> int | None:
        self.asked += 1
        due = self._ideal.ready_cycle()
        return due if due is not None and due <= self._now + 1 else None

    def pop(self) -> None:
        self._ideal.pop()

    def write(self, cycle: int, address: int, nbytes: int) -> int:
        assert cycle >= self._now
        self._now = cycle
        self._tickets.append(self._ideal.write(cycle, address, nbytes))
        return len(self._tickets) - 1

    def written_cycle(self, ticket: int) -> int | None:
        due = self._tickets[ticket]
        return due if due <= self._now + 1 else None

    def energy(self, cycle: int) -> None:
        assert cycle >= self._now

    def describe(self) -> dict[str, Any]:
        return {"name": "late"}


class Columns(Late):
    """The same, asked once for all beats that can be transferred from one cycle on."""

    def pop_column(self) -> int:
        due = self._ideal.ready_cycle()
        count = 0
        while self._ideal.ready_cycle() == due:
            self._ideal.pop()
            count += 1
        return count


@pytest.mark.parametrize("kind", [None, Late, Columns], ids=["at once", "late", "columns"])
@pytest.mark.parametrize("seed", range(12))
def test_asking_changes_nothing(tmp_path: Path, seed: int, kind: type | None) -> None:
    program = random_program(tmp_path, 2000 + seed, SMALL)
    spec = random_memory(seed)
    compiled = predict(SMALL, program, parse_memory(spec))
    memory = kind(parse_memory(spec)) if kind else parse_memory(spec)
    asked = predict(SMALL, program, memory, ways=Ways(ask=True))
    assert (asked.registers, asked.records) == (compiled.registers, compiled.records)


class Spied(Dram):
    """A DRAM that is asked in Python because it is a class of its own."""

    requests = 0

    def request(self, cycle: int, address: int, beats: int, beat_bytes: int) -> None:
        self.requests += 1
        super().request(cycle, address, beats, beat_bytes)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", device_names())
def test_dram_by_itself_and_through_python(tmp_path: Path, name: str, seed: int) -> None:
    """C that calls C counts the same, and leaves the memory in the same state."""
    program = random_program(tmp_path, 2100 + seed, SMALL)
    for ways in (Ways(), Ways(leaps=False)):
        direct, spied = Dram(load_device(name)), Spied(load_device(name))
        found = predict(SMALL, program, direct, ways=ways)
        asked = predict(SMALL, program, spied)
        assert (found.registers, found.records) == (asked.registers, asked.records)
        assert spied.requests == found.read_bursts
        cycle = found.registers["CYCLES"] + 1000
        assert direct.counts(cycle) == spied.counts(cycle)
        assert direct.energy(cycle) == spied.energy(cycle)


def test_dram_sets_no_pace(tmp_path: Path) -> None:
    """Millions of cycles per second, if alone; with an engine in Python it was half a million."""
    path = write(tmp_path / "wide.vq.safetensors", [Maker(0).int8("fc", (1024, 1024))])
    config = AcceleratorConfig()
    with open_container(path) as container:
        program = assemble(steps_of_layers(container, 1), container, config)
    start = time.process_time()
    found = predict(config, program, parse_memory("ddr4-2400"))
    seconds = time.process_time() - start
    assert found.registers["CYCLES"] > 65_536
    assert found.registers["CYCLES"] / seconds > 1e6


def test_addresses_are_those_of_the_program(tmp_path: Path) -> None:
    """What is read is what the program says, burst by burst and not across 4 KiB."""
    program = random_program(tmp_path, 2003, SMALL)
    reads: deque[tuple[int, int]] = deque()
    writes: set[int] = set()

    class Noted(IdealMemory):
        def request(self, cycle: int, address: int, beats: int, beat_bytes: int) -> None:
            assert address // 4096 == (address + beats * beat_bytes - 1) // 4096
            reads.append((address, beats * beat_bytes))
            super().request(cycle, address, beats, beat_bytes)

        def write(self, cycle: int, address: int, nbytes: int) -> int:
            assert address not in writes
            writes.add(address)
            return super().write(cycle, address, nbytes)

    predict(SMALL, program, Noted(), ways=Ways(ask=True))
    assert reads[0][0] == program.address
    assert sum(size for _, size in reads) == sum(layer.read_bytes for layer in program.layers)
    written = sum(layer.written_bytes for layer in program.layers)
    assert len(writes) * SMALL.bus_bytes == written
    records = range(program.records, program.records + 64 * len(program.layers), SMALL.bus_bytes)
    assert writes.issuperset(records)


def test_what_a_memory_raises_comes_through(tmp_path: Path) -> None:
    class Broken(IdealMemory):
        def request(self, cycle: int, address: int, beats: int, beat_bytes: int) -> None:
            raise ValueError("no such row")

    program = random_program(tmp_path, 2001, SMALL)
    with pytest.raises(ValueError, match=r"^no such row$"):
        predict(SMALL, program, Broken(), ways=Ways(ask=True))


def test_progress_while_a_memory_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In small steps, which change no number."""
    program = random_program(tmp_path, 2000, SMALL)
    once: list[int] = []
    whole = predict(SMALL, program, parse_memory("ddr4-2400:clock_mhz=500"), progress=once.append)
    monkeypatch.setattr("hwsim.cycles.machine._ASKED_STEP_CYCLES", 64)
    seen: list[int] = []
    parts = predict(SMALL, program, parse_memory("ddr4-2400:clock_mhz=500"), progress=seen.append)
    assert len(once) == 1 and len(set(seen)) > 3 and seen == sorted(seen)
    assert seen[-1] == once[-1] and parts.registers == whole.registers
