"""The AXI slave without a simulator: what it accepts, and which rules it enforces."""

from typing import Any

import pytest

from hwsim.memory import IdealMemory
from hwsim.simulator.axi import AxiReadSlave, ProtocolError
from hwsim.simulator.traffic import Traffic


class Port:
    """Stands in for a narrow simulated port."""

    def __init__(self, value: int = 0) -> None:
        self.value = value
        self._handle = self

    def __len__(self) -> int:
        return 31

    def get_signal_val_long(self) -> int:
        return self.value

    def set_signal_val_int(self, _: int, value: int) -> None:
        self.value = value


class Design:
    """Stands in for a design whose AXI port carries two bytes per beat."""

    def __init__(self) -> None:
        self.ports: dict[str, Port] = {}

    def __getattr__(self, name: str) -> Any:
        return self.ports.setdefault(name, Port())


def ask(design: Design, address: int, beats: int, *, size: int = 1, burst: int = 1) -> None:
    fields = {"addr": address, "len": beats - 1, "size": size, "burst": burst, "valid": 1}
    for field, value in fields.items():
        getattr(design, f"m_axi_ar{field}").value = value


def slave_of(design: Design, **traffic: Any) -> AxiReadSlave:
    image = bytes(range(256)) * 32
    memory = IdealMemory(bytes_per_cycle=2, latency_cycles=3)
    slave = AxiReadSlave(design, image, memory, Traffic(**traffic), 16)
    slave.step(0)
    design.m_axi_rready.value = 1
    return slave


def answers(design: Design, slave: AxiReadSlave, beats: int) -> list[tuple[int, int, int, int]]:
    """Cycle, data, response and last of the next beats."""
    seen = []
    for cycle in range(1, 60):
        if design.m_axi_rvalid.value and design.m_axi_rready.value:
            beat = [getattr(design, f"m_axi_r{field}").value for field in ("data", "resp", "last")]
            seen.append((cycle, *beat))
        slave.step(cycle)
        design.m_axi_arvalid.value = 0
        if len(seen) == beats:
            return seen
    raise AssertionError(seen)


def test_burst() -> None:
    design = Design()
    slave = slave_of(design)
    ask(design, 0x102, 2)
    assert answers(design, slave, 2) == [(4, 0x0302, 0, 0), (5, 0x0504, 0, 1)]
    assert (slave.beats, slave.bursts) == (2, 1)
    assert (slave.first_beat_cycle, slave.last_beat_cycle) == (4, 5)


def test_held_until_taken() -> None:
    design = Design()
    slave = slave_of(design)
    ask(design, 0, 1)
    design.m_axi_rready.value = 0
    for cycle in range(1, 9):
        slave.step(cycle)
        design.m_axi_arvalid.value = 0
    assert design.m_axi_rvalid.value == 1 and slave.beats == 0


@pytest.mark.parametrize(("address", "response"), [(8192, 3), (8190, 0), (0x1234, 0), (64, 2)])
def test_responses(address: int, response: int) -> None:
    design = Design()
    slave = slave_of(design, error_granules=(1,))
    ask(design, address, 1)
    ((_, _, given, _),) = answers(design, slave, 1)
    assert given == response


@pytest.mark.parametrize(
    ("request_", "rule"),
    [
        ({"address": 4094, "beats": 2}, "must not cross 4 KiB, not 0xffe with 4 bytes"),
        ({"address": 0, "beats": 1, "burst": 0}, "arburst must be INCR, not 0"),
        ({"address": 0, "beats": 1, "size": 0}, "arsize must be the full bus, not 1 bytes"),
        ({"address": 1, "beats": 1}, "araddr must be aligned, not 0x1"),
    ],
)
def test_protocol_rules(request_: dict, rule: str) -> None:
    design = Design()
    slave = slave_of(design)
    ask(design, **request_)
    with pytest.raises(ProtocolError, match=rule):
        slave.step(1)


def test_request_must_be_held_and_stable() -> None:
    design = Design()
    slave = slave_of(design, ar_idle=0.999999)
    slave.step(1)  # not ready any more
    ask(design, 0, 1)
    slave.step(2)
    ask(design, 2, 1)
    with pytest.raises(ProtocolError, match="AR must be stable until ready"):
        slave.step(3)
    design.m_axi_arvalid.value = 0
    with pytest.raises(ProtocolError, match="arvalid must be held until ready"):
        slave.step(4)
