"""A file and its baselines: everything is laid out before anything runs, on files that are open."""

from pathlib import Path

import pytest

from hwsim.measure.document import Bytes, Layer, Run, Stalls
from hwsim.measure.file import measure, runs_as_network
from rtl import AcceleratorConfig
from tests.hwsim.containers import Maker, write
from vq.container import ConfigError, ContainerError, open_container

SETTINGS = {"config": AcceleratorConfig(), "memory": "ideal", "rows": None}
CYCLES = {"compressed": 10, "int8": 40, "int4": 20}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "file.vq.safetensors", [Maker().ssvq("a", (32, 32), 8, 16)])


def counted(cycles: int) -> Run:
    """A run of one layer that was busy all the time and read a byte per cycle."""
    stalls = Stalls(memory=0, codebook=0, decoder=0, compute=0, writeback=0)
    layer = Layer(
        name="a", method="ssvq", weights=1024, macs=1024, m=1, cycles=cycles, bytes_read=cycles,
        busy_cycles=cycles, stall_cycles=stalls,
    )  # fmt: skip
    return Run(
        cycles=cycles, bytes_read=cycles, bytes_written=0, bursts=1, stall_cycles=stalls,
        busy_cycles=cycles, bit_exact=None, wall_seconds=0.0, layers=[layer],
        bytes_by=Bytes(
            weights=cycles, codebooks=0, scales=0, activations=0, descriptors=0, padding=0
        ),
    )  # fmt: skip


def test_all_is_prepared_before_the_first_run(file: Path) -> None:
    told, containers = [], []

    def prepare(name, container, original):
        told.append(("prepare", name, container is original))
        containers.append(container)

        def run() -> Run:
            told.append(("run", name, container.weight("a").shape))
            return counted(CYCLES[name])

        return run

    methods = ("int8", "int4", "int8")
    document = measure(file, "model", prepare, **SETTINGS, methods=methods)
    assert told == [
        ("prepare", "compressed", True), ("prepare", "int8", False), ("prepare", "int4", False),
        *(("run", name, (32, 32)) for name in CYCLES),
    ]  # fmt: skip
    assert (list(document["runs"]), document["speedup"]) == (list(CYCLES), 4.0)
    for container in containers:
        with pytest.raises(ContainerError, match="closed"):
            container.weight("a")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"methods": ["int5"]}, r"^methods must be of int8, int4, int3, int2, not 'int5'$"),
        ({"rows": 0}, r"^rows must be at least 1, not 0$"),
        ({"memory": "sram"}, r"^memory must be one of .*, not 'sram'"),
    ],
)
def test_refused_before_anything_is_prepared(file: Path, given: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        measure(file, "model", None, **{**SETTINGS, "methods": ["int8"], **given})


def test_without_a_graph_layers_run_by_themselves(file: Path) -> None:
    with open_container(file) as container:
        assert not runs_as_network(container, None) and not runs_as_network(container, 3)
